"""DIN's attention, Dice and the layers of BST against FuxiCTR, DCNv3 against its authors' code.

On the path: the package fuxictr; for BST a checkout of github.com/reczoo/FuxiCTR, whose wheel lacks model_zoo/BST; for
DCNv3 one of github.com/salmon1802/FCN.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from rec.modules.activation import Dice
from rec.modules.bst import BehaviorSequenceTransformer
from rec.modules.din import DINAttention
from rec.modules.fusing_cross import FusingCross
from rec.modules.positions import steps_behind
from tests.modules.golden import fill, outcome, wave
from tools.agreement import Agreement, largest

# Rows, most steps, width.
SMALL, USUAL = (3, 4, 6), (64, 50, 64)


@cache
def theirs(name: str) -> ModuleType:
    """A module of other people's, without the packages that it reads data with."""
    own = ("fuxictr", name.split(".")[0])
    absent: list[str] = []
    try:
        while True:
            try:
                return import_module(name)
            except ModuleNotFoundError as error:
                if error.name is None or error.name.split(".")[0] in own:
                    raise
                absent.append(error.name)
                sys.modules[error.name] = MagicMock()
                for loaded in [k for k in sys.modules if k.split(".")[0] in own]:
                    del sys.modules[loaded]
    finally:
        for stand_in in absent:
            del sys.modules[stand_in]


def _compared(
    layer: str,
    reference: str,
    shape: str,
    ours: Callable[[Tensor, Tensor], Tensor],
    other: Callable[[Tensor, Tensor], Tensor],
    inputs: tuple[Tensor, Tensor],
    weights: list[tuple[Tensor, Tensor]],
) -> Agreement:
    """Outputs and gradients of two functions of two inputs.

    Args:
        layer: ours, in words.
        reference: theirs, in words.
        shape: of the comparison, in words.
        ours: a function of the inputs.
        other: theirs.
        inputs: both get copies of them.
        weights: pairs of parameters that have to get the same gradient.
    """
    ends = []
    for function in (ours, other):
        copies = [x.detach().clone().requires_grad_() for x in inputs]
        out = function(*copies)
        (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        ends.append((out, [c.grad for c in copies]))
    (a, grads_a), (b, grads_b) = ends
    pairs = [*zip(grads_a, grads_b, strict=True), *((p.grad, q.grad) for p, q in weights)]
    gradient = max(
        largest(p, q) / max(q.abs().max().item(), torch.finfo(q.dtype).tiny) for p, q in pairs if q is not None
    )
    first = next(g for g in grads_b if g is not None)
    return Agreement(layer, reference, shape, largest(a, b), gradient, tuple(outcome(b, first)))


def _padded(steps_ND: Tensor, size: list[int], most: int) -> Tensor:
    rows = [nn.functional.pad(row, (0, 0, 0, most - len(row))) for row in steps_ND.split(size)]
    return torch.stack(rows)


def _lengths(rows: int, most: int) -> list[int]:
    return [(7 * i + 3) % (most + 1) for i in range(rows)]


def _copy(ours: nn.Module, other: nn.Module, names: dict[str, str]) -> list[tuple[Tensor, Tensor]]:
    """Give theirs our parameters; the pairs."""
    named = dict(other.named_parameters())
    pairs = []
    for name, p in ours.named_parameters():
        q = named.pop(names.get(name, name))
        q.data.copy_(p.data.view_as(q))
        pairs.append((p, q))
    assert not named, f"no counterpart of {list(named)}"
    return pairs


def _input(sizes: tuple[int, ...], dtype: torch.dtype, *shape: int) -> Tensor:
    return wave(*shape).detach().to(dtype) if sizes == SMALL else torch.randn(*shape, dtype=dtype)


def _shape(sizes: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"B {sizes[0]} L {sizes[1]} D {sizes[2]} {str(dtype).removeprefix('torch.')}"


def din(sizes: tuple[int, int, int], dtype: torch.dtype, activation: str) -> Agreement:
    """The local activation unit; with Dice in evaluation, as theirs sees padding in its statistics."""
    rows, most, width = sizes
    torch.manual_seed(0)
    ours = DINAttention(width, hidden_units=[8, 4], activation=activation).to(dtype)
    other = theirs("fuxictr.pytorch.layers").DIN_Attention(
        width, [8, 4], hidden_activations=activation.removeprefix("nn.")
    )
    if sizes == SMALL:
        fill(ours)
    modules = [m for m in other.attention_layer.mlp]
    linears = [i for i, m in enumerate(modules) if isinstance(m, nn.Linear)]
    alphas = [i for i, m in enumerate(modules) if hasattr(m, "alpha")]
    names = {}
    layers = iter(linears)
    for name, _ in ours.named_parameters():
        if name.endswith("weight"):
            at = next(layers)
        if name.endswith("alpha"):
            names[name] = f"attention_layer.mlp.{alphas.pop(0)}.alpha"
        else:
            names[name] = f"attention_layer.mlp.{at}.{name.rpartition('.')[2]}"
    other = other.to(dtype)
    pairs = _copy(ours, other, names)
    if activation == "Dice":
        ours, other = ours.eval(), other.eval()
    size = _lengths(rows, most)
    lengths = torch.tensor(size)
    mask = torch.arange(most) < lengths.unsqueeze(1)
    return _compared(
        f"DINAttention, {activation}",
        f"fuxictr {version('fuxictr')}",
        _shape(sizes, dtype),
        lambda q, k: ours(q, k, lengths),
        lambda q, k: other(q, _padded(k, size, most), mask),
        (_input(sizes, dtype, rows, width), _input(sizes, dtype, sum(size), width)),
        pairs,
    )


def dice(sizes: tuple[int, int, int], dtype: torch.dtype) -> Agreement:
    """Dice in training."""
    width = sizes[2]
    torch.manual_seed(0)
    ours, other = fill(Dice(width).to(dtype)), theirs("fuxictr.pytorch.layers.activations").Dice(width).to(dtype)
    pairs = _copy(ours, other, {})
    x = _input(sizes, dtype, sizes[0] * sizes[1], width)
    return _compared(
        "Dice",
        f"fuxictr {version('fuxictr')}",
        _shape(sizes, dtype),
        lambda x, _: ours(x),
        lambda x, _: other(x),
        (x, x[:0]),
        pairs,
    )


def bst(sizes: tuple[int, int, int], dtype: torch.dtype, pooling: str) -> Agreement:
    """Two layers of BST; theirs is padded in front, so that positions are distances from the target."""
    rows, most, width = sizes
    torch.manual_seed(0)
    heads, beside = 2, 2
    ours = BehaviorSequenceTransformer(
        width, position_dim=beside, positions=most + 1, most_steps=most, num_layers=2, num_heads=heads, pooling=pooling
    ).to(dtype)
    module = theirs("model_zoo.BST.src.BST")
    token = width + beside
    other = module.BehaviorTransformer(
        seq_len=most + 1, model_dim=token, num_heads=heads, stacked_transformer_layers=2, position_dim=beside
    ).to(dtype)
    if sizes == SMALL:
        fill(ours)
    else:
        nn.init.normal_(ours.positions.table_PD)  # type: ignore[union-attr]
    parts = {
        "attention.in_proj.weight": "attention.in_proj_weight",
        "attention.in_proj.bias": "attention.in_proj_bias",
        "norm_attention": "layer_norm1",
        "norm_ffn": "layer_norm2",
    }
    names = {"positions.table_PD": "position_emb"}
    for name, _ in ours.named_parameters():
        if name.startswith("layers."):
            new = name.replace("layers.layers.", "transformer_blocks.")
            for part, theirs_name in parts.items():
                new = new.replace(part, theirs_name)
            names[name] = new
    pairs = _copy(ours, other, names)
    # Their positions count from the left, ours to the target.
    position = dict(other.named_parameters())["position_emb"]
    position.data.copy_(position.data.flip(0))
    size = _lengths(rows, most)
    lengths = torch.tensor(size)
    padding = torch.arange(most).flip(0) >= lengths.unsqueeze(1)
    # `get_mask` reads ids, of which 0 is padding.
    model = MagicMock(use_causal_mask=False, num_heads=heads, seq_pooling_type=pooling.lower())
    padding, attention = module.BST.get_mask(model, (~padding).long())

    def reference(q: Tensor, k: Tensor) -> Tensor:
        front = torch.stack([nn.functional.pad(row, (0, 0, most - len(row), 0)) for row in k.split(size)])
        out = other(torch.cat([front, q.unsqueeze(1)], dim=1), attn_mask=attention)
        if pooling == "CONCAT":
            # Ours are zeros there; theirs whatever a step of zeros gives.
            out = out * ~padding.unsqueeze(2)
        return module.BST.sequence_pooling(model, out, padding)

    def own(q: Tensor, k: Tensor) -> Tensor:
        return ours(q, k, steps_behind(lengths, lengths, k) + 1, lengths)

    position_pair = next((p, q) for p, q in pairs if q is position)
    pairs.remove(position_pair)
    found = _compared(
        f"BehaviorSequenceTransformer, {pooling}",
        "FuxiCTR 0245987, model_zoo/BST",
        _shape(sizes, dtype),
        own,
        reference,
        (_input(sizes, dtype, rows, width), _input(sizes, dtype, sum(size), width)),
        pairs,
    )
    a, b = position_pair[0].grad, position.grad.flip(0)  # type: ignore[union-attr]
    assert a is not None
    worst = max(found.gradient, largest(a, b) / b.abs().max().item())
    return Agreement(found.layer, found.reference, found.shape, found.output, worst, found.outcome)


def dcn_v3(sizes: tuple[int, int, int], dtype: torch.dtype, name: str) -> Agreement:
    """One cross network of DCNv3 with its logit."""
    rows, heads, width = sizes[0], 2, 2 * sizes[2]
    torch.manual_seed(0)
    ours = FusingCross(width, num_heads=heads, exponential=name == "Exponential", cross_num=3, dropout_ratio=0).to(
        dtype
    )
    other = getattr(theirs("src.DCNv3"), f"{name}CrossNetwork")(
        width, num_cross_layers=3, layer_norm=True, batch_norm=False, net_dropout=0, num_heads=heads
    ).to(dtype)
    if sizes == SMALL:
        fill(ours)
    names = {}
    for own, _ in ours.named_parameters():
        new = own.replace("weights.", "w.").replace("biases.", "b.").replace("lns.", "layer_norm.")
        names[own] = new.replace("head.", "dfc." if name == "Exponential" else "sfc.")
    pairs = _copy(ours, other, names)
    x = 0.1 * _input(sizes, dtype, rows, heads, width)
    return _compared(
        f"FusingCross, {name.lower()}",
        "FCN 1835ffe",
        f"B {rows} H {heads} D {width} {str(dtype).removeprefix('torch.')}",
        lambda x, _: ours(x),
        lambda x, _: other(x).mean(dim=1),
        (x, x[:0]),
        pairs,
    )


def checks() -> Iterator[Agreement]:
    """All comparisons; those whose code is not on the path are left out, and told."""
    warnings.simplefilter("ignore")
    for dtype in (torch.float64, torch.float32):
        for sizes in (SMALL, USUAL):
            found: list[Callable[[], Agreement]] = [
                lambda s=sizes, d=dtype: din(s, d, "nn.ReLU"),  # type: ignore[misc]
                lambda s=sizes, d=dtype: din(s, d, "Dice"),  # type: ignore[misc]
                lambda s=sizes, d=dtype: dice(s, d),  # type: ignore[misc]
                *(lambda s=sizes, d=dtype, p=p: bst(s, d, p) for p in ("CONCAT", "TARGET", "MEAN", "SUM")),  # type: ignore[misc]
                lambda s=sizes, d=dtype: dcn_v3(s, d, "Exponential"),  # type: ignore[misc]
                lambda s=sizes, d=dtype: dcn_v3(s, d, "Linear"),  # type: ignore[misc]
            ]
            for check in found:
                try:
                    yield check()
                except ModuleNotFoundError as error:
                    print(f"left out: no {error.name} on the path")
