"""Readable truth of the dot interaction."""

from __future__ import annotations

# B rows, F fields, D width, P = F (F - 1) / 2 pairs
import torch
from torch import Tensor


def pair_index(num_fields: int) -> Tensor:
    """Places of the pairs i < j, row by row, in a flattened F x F matrix: [P] int64."""
    i, j = torch.triu_indices(num_fields, num_fields, offset=1)
    return i * num_fields + j


def dot_interaction(x_BFD: Tensor, pairs: Tensor) -> Tensor:
    """<x_i, x_j> for all i < j.

    Args:
        x_BFD: [B, F, D].
        pairs: `pair_index(F)`, [P].
    Returns:
        [B, P]
    """
    gram_BFF = torch.bmm(x_BFD, x_BFD.transpose(1, 2))
    return gram_BFF.flatten(1).index_select(1, pairs)
