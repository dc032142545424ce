"""MulT's encoder, from one modality to another and within one, against the one in MMSA."""

# B rows, L steps of a query's row, S steps of a key's row, D width
from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rec.modules.cross_attention import Steps
from rec.modules.multimodal import CrossModalEncoder
from rec.modules.transformer import Transformer, TransformerLayer
from tools.agreement import Agreement, largest

# Rows, steps of target and source, width, heads, layers: unaligned in both directions, and aligned.
SIZES = ((3, 5, 8, 10, 5, 2), (3, 8, 5, 10, 5, 2), (16, 50, 50, 30, 5, 5))


def _theirs() -> Any:
    """The module, without running the package around it."""
    spec = find_spec("MMSA")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("MMSA is not on the path")
    folder = str(Path(spec.submodule_search_locations[0]) / "models" / "subNets")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return import_module("transformers_encoder.transformer").TransformerEncoder


def _pairs(ours: nn.Module, theirs: nn.Module, *, crosses: bool) -> list[tuple[Tensor, Tensor]]:
    """Parameters of the same meaning."""
    pairs = [(ours.norm.weight, theirs.layer_norm.weight), (ours.norm.bias, theirs.layer_norm.bias)]
    for a, b in zip(ours.layers, theirs.layers, strict=True):  # type: ignore[arg-type]
        layers: Any = (a, b)
        mine, other = layers
        for name in ("weight", "bias"):
            whole = getattr(other.self_attn, f"in_proj_{name}")
            if crosses:
                width = mine.attention.query.in_features
                pairs += [
                    (getattr(mine.attention.query, name), whole[:width]),
                    (getattr(mine.attention.key_value, name), whole[width:]),
                ]
            else:
                pairs.append((getattr(mine.attention.in_proj, name), whole))
            pairs += [
                (getattr(mine.attention.out_proj, name), getattr(other.self_attn.out_proj, name)),
                (getattr(mine.ffn[0], name), getattr(other.fc1, name)),
                (getattr(mine.ffn[2], name), getattr(other.fc2, name)),
                (getattr(mine.norm_attention, name), getattr(other.layer_norms[0], name)),
                (getattr(mine.norm_ffn, name), getattr(other.layer_norms[1], name)),
            ]
    return pairs


def _jagged(x_LBD: Tensor) -> Steps:
    """Rows of equal length, one after the other."""
    length, rows, width = x_LBD.shape
    lengths = torch.full((rows,), length)
    return Steps(x_LBD.transpose(0, 1).reshape(-1, width), lengths, lengths)


def _compare(sizes: tuple[int, ...], dtype: torch.dtype, *, crosses: bool) -> Agreement:
    rows, target, source, width, heads, layers = sizes
    torch.manual_seed(0)
    theirs = _theirs()(width, heads, layers, attn_mask=True).to(dtype).eval()
    ours: nn.Module
    if crosses:
        ours = CrossModalEncoder(
            width, longest_query=target, longest_key=source, num_layers=layers, num_heads=heads, ffn_dim=4 * width,
            causal=True,
        )  # fmt: skip
    else:
        ours = Transformer(
            [
                TransformerLayer(
                    width, num_heads=heads, longest=target, ffn_dim=4 * width, norm_first=True, causal=True
                )
                for _ in range(layers)
            ],
            width,
        )
    ours = ours.to(dtype).eval()
    pairs = _pairs(ours, theirs, crosses=crosses)
    with torch.no_grad():
        for mine, other in pairs:
            other.add_(0.1 * torch.randn_like(other))  # biases that are not 0
            mine.copy_(other)
    x = torch.randn(target, rows, width, dtype=dtype, requires_grad=True)
    k = torch.randn(source, rows, width, dtype=dtype, requires_grad=True)
    z = theirs(x, k, k) if crosses else theirs(x)
    z.square().sum().backward()
    wanted = [x.grad, k.grad] if crosses else [x.grad]
    x.grad = k.grad = None
    # They scale what comes in; MSA's own linear map learns that.
    q, s = _jagged(x * width**0.5), _jagged(k * width**0.5)
    y = ours(q, s).x_ND if crosses else ours(q.x_ND, q.lengths_B, q.kept_B)
    y = y.view(rows, target, width).transpose(0, 1)
    y.square().sum().backward()
    found = [x.grad, k.grad] if crosses else [x.grad]
    worst = max(
        largest(a, b) / b.abs().max().item()
        for a, b in zip(found, wanted, strict=True)
        if a is not None and b is not None
    )
    return Agreement(
        "CrossModalEncoder" if crosses else "Transformer, causal",
        f"MMSA {version('MMSA')}, MulT",
        f"B {rows} L {target} S {source if crosses else target} D {width} {str(dtype).removeprefix('torch.')}",
        largest(y, z),
        worst,
    )


def checks() -> Iterator[Agreement]:
    """All comparisons, outputs and gradients of inputs; needs MMSA on the path."""
    for sizes in SIZES:
        for dtype in (torch.float64, torch.float32):
            yield _compare(sizes, dtype, crosses=True)
    for dtype in (torch.float64, torch.float32):
        yield _compare(SIZES[-1], dtype, crosses=False)
