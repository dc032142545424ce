"""Jagged values in a rectangle, and back."""

# B rows, N values in all rows together, L places of a row, D width
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.ops.jagged.reference import row_of_each


def flat_places(place_N: Tensor, lengths_B: Tensor, places: int) -> Tensor:
    """Place of each value in the flattened [B, L], int64 [N].

    Args:
        place_N: place in its row; a value whose place is below 0 or from L on gets the one behind all others, B L.
        lengths_B: values per row, integer [B].
        places: L.
    """
    row_N = row_of_each(lengths_B, place_N).to(torch.int64)
    spare_N = torch.zeros_like(row_N) + lengths_B.shape[0] * places
    return torch.where((place_N >= 0) & (place_N < places), row_N * places + place_N, spare_N)


def to_padded(x_ND: Tensor, flat_N: Tensor, lengths_B: Tensor, places: int) -> Tensor:
    """Values at their places, 0 elsewhere: [N, D] -> [B, L, D].

    Args:
        x_ND: jagged values.
        flat_N: `flat_places`.
        lengths_B: values per row; only its size is read.
        places: L.
    """
    rows, width = lengths_B.shape[0], x_ND.shape[1]
    # A copy into a tensor with one place more, which is cut off. Its backward reads rows; that of a gather adds.
    flat_MD = x_ND.new_zeros(rows * places + 1, width).index_copy(0, flat_N, x_ND)
    return flat_MD[: rows * places].view(rows, places, width)


def from_padded(x_BLD: Tensor, flat_N: Tensor, lengths_B: Tensor, places: int) -> Tensor:
    """Values from their places, 0 for those without: [B, L, D] -> [N, D]; the arguments are those of `to_padded`."""
    width = x_BLD.shape[2]
    flat_MD = F.pad(x_BLD.reshape(lengths_B.shape[0] * places, width), (0, 0, 0, 1))
    # Not index_select, whose backward adds row by row.
    return flat_MD.gather(0, flat_N.unsqueeze(1).expand(-1, width))
