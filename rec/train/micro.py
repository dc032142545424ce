"""Cutting the output of one look-up into micro-batches, and putting their gradients together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Groups = dict[str, Tensor]


def split_groups(
    groups: Mapping[str, Tensor], sizes: Sequence[int], items: Sequence[int] | None = None
) -> list[Groups]:
    """The groups of each micro-batch, detached: the leaves of the model's backward.

    Args:
        groups: outputs of the EmbeddingGroup over the concatenated batch; [B, D] by row, and jagged
            `<group>.sequence` [sum L, D] whose rows are told by `<group>.lengths` [B]. A `<group>.catalogue` is of no
            row: every micro-batch gets all of it.
        sizes: rows of each micro-batch; they add up to B.
        items: rows of the item tower's groups in each, where they have sampled negatives too.
    """
    rows = sum(sizes)
    parts: list[Groups] = [{} for _ in sizes]
    for name, value in groups.items():
        if name.endswith(".catalogue"):
            for part in parts:
                part[name] = value.detach().requires_grad_(value.requires_grad)
            continue
        lengths = groups[name.removesuffix("sequence") + "lengths"] if name.endswith(".sequence") else None
        count = (value if lengths is None else lengths).shape[0]
        cuts = list(sizes if items is None or count == rows else items)
        if lengths is not None:
            cuts = [int(piece.sum()) for piece in lengths.split(cuts)]
        for part, piece in zip(parts, value.detach().split(cuts), strict=True):
            part[name] = piece.requires_grad_() if value.requires_grad else piece
    return parts


def join_gradients(
    groups: Mapping[str, Tensor], parts: Sequence[Mapping[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """(outputs, their gradients) for one backward into the look-up.

    Args:
        groups: as given to `split_groups`.
        parts: as it returned them, after the backward of every micro-batch.
    """
    outputs, gradients = [], []
    for name, value in groups.items():
        if not value.requires_grad or all(part[name].grad is None for part in parts):
            continue
        pieces = [p.grad if (p := part[name]).grad is not None else torch.zeros_like(p) for part in parts]
        outputs.append(value)
        if name.endswith(".catalogue"):
            gradients.append(torch.stack(pieces).sum(dim=0))
        else:
            gradients.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces))
    return outputs, gradients
