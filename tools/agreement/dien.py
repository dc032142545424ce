"""The attentional GRU against DeepCTR-Torch's cell."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor, nn

from rec.modules.interest import AttentionalGRU
from tools.agreement import Agreement, largest, largest_gradient

# Rows, steps, width of a step, width of the state.
SIZES = ((3, 5, 6, 4), (16, 50, 32, 32))


def _cell(width: int, state: int) -> nn.Module:
    # Its package imports TensorFlow's callbacks on the way to its layers.
    for name in ("tensorflow", "tensorflow.python", "tensorflow.python.keras", "tensorflow.python.keras.callbacks"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from deepctr_torch.layers.sequence import AUGRUCell

    cell = AUGRUCell(width, state)
    # It registers its second bias under the name of the first, so that both are one; ours are two.
    cell.bias_ih = nn.Parameter(torch.empty_like(cell.bias_hh))
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.3)
    return cell


def _stepped(cell: nn.Module, x_BLD: Tensor, attention_BL: Tensor, state: int) -> Tensor:
    h_BH, states = x_BLD.new_zeros(x_BLD.shape[0], state), []
    for t in range(x_BLD.shape[1]):
        h_BH = cell(x_BLD[:, t], h_BH, attention_BL[:, t])
        states.append(h_BH)
    return torch.stack(states, dim=1)


def _compare(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> Agreement:
    rows, length, width, state = sizes
    torch.manual_seed(0)
    theirs = _cell(width, state).to(dtype)
    ours = AttentionalGRU(width, state).to(dtype)
    pairs = list(
        zip(
            (ours.input.weight, ours.weight, ours.input.bias, ours.bias),
            (theirs.weight_ih, theirs.weight_hh, theirs.bias_ih, theirs.bias_hh),
            strict=True,
        )
    )
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other)
    x, attention = torch.randn(rows, length, width, dtype=dtype), torch.rand(rows, length, dtype=dtype)
    a, b = x.flatten(0, 1).requires_grad_(), x.clone().requires_grad_()
    lengths = torch.full((rows,), length)
    y = ours(a, lengths, attention.flatten())
    z = _stepped(theirs, b, attention, state)
    y.square().sum().backward()
    z.square().sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    b_flat = b.detach().flatten(0, 1)
    b_flat.grad = b.grad.flatten(0, 1)
    return Agreement(
        "AttentionalGRU",
        f"deepctr-torch {version('deepctr-torch')}",
        f"B {rows} L {length} D {width} H {state} {str(dtype).removeprefix('torch.')}",
        largest(y, z.flatten(0, 1)),
        largest_gradient(nn.Identity(), nn.Identity(), *pairs, (a, b_flat)),
    )


def checks() -> Iterator[Agreement]:
    """All comparisons; needs deepctr-torch on the path."""
    warnings.simplefilter("ignore")
    for sizes in SIZES:
        yield _compare(sizes, torch.float32)
