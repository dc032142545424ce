"""The Mamba block against mambapy and transformers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor

from rec.modules.mamba import MambaBlock
from tests.modules.golden import fill, outcome, wave
from tools.agreement import Agreement, largest, largest_gradient

# Rows, steps, width, states.
SMALL, USUAL = (2, 5, 6, 3), (8, 50, 64, 16)


def _theirs(package: str, width: int, states: int) -> torch.nn.Module:
    if package == "mambapy":
        from mambapy.mamba import MambaBlock as Theirs
        from mambapy.mamba import MambaConfig

        return Theirs(MambaConfig(d_model=width, n_layers=1, d_state=states))
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    return MambaMixer(MambaConfig(hidden_size=width, state_size=states, num_hidden_layers=1), layer_idx=0)


def _compare(package: str, sizes: tuple[int, int, int, int], dtype: torch.dtype, mask: Tensor | None) -> Agreement:
    rows, length, width, states = sizes
    torch.manual_seed(0)
    ours = MambaBlock(width, d_state=states).to(dtype)
    theirs = _theirs(package, width, states).to(dtype).eval()
    if sizes == SMALL:
        fill(ours)
        x = wave(rows, length, width).detach().to(dtype)
    else:
        x = torch.randn(rows, length, width, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    everywhere = torch.ones(rows, length) if mask is None else mask
    y = ours.forward_padded(a, everywhere)
    z = theirs(b) if mask is None else theirs(b, attention_mask=mask) * mask.unsqueeze(2)
    loss = lambda t: t.square().sum()  # noqa: E731
    loss(y).backward()
    loss(z).backward()
    return Agreement(
        "MambaBlock" + ("" if mask is None else ", padded left"),
        f"{package} {version(package)}",
        f"B {rows} L {length} D {width} S {states} {str(dtype).removeprefix('torch.')}",
        largest(y, z),
        largest_gradient(ours, theirs, (a, b)),
        tuple(outcome(z, b.grad)) if b.grad is not None else (),
    )


def checks() -> Iterator[Agreement]:
    """All comparisons; needs mambapy and transformers on the path."""
    warnings.simplefilter("ignore")
    for sizes in (SMALL, USUAL):
        for dtype in (torch.float64, torch.float32):
            yield _compare("mambapy", sizes, dtype, None)
            yield _compare("transformers", sizes, dtype, None)
            mask = torch.ones(sizes[:2], dtype=torch.int64)
            mask[0, : sizes[1] // 2] = 0
            yield _compare("transformers", sizes, dtype, mask)
