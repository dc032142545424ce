"""The largest value of each row, and the softmax over the values of a row."""

# B rows, N values in all rows together, D width
from __future__ import annotations

import torch
from torch import Tensor

from rec.ops.jagged.fused import repeat_rows, segment_sum

# Below any value, but finite.
LOWEST = -3e38


def segment_max(x_ND: Tensor, lengths_B: Tensor) -> Tensor:
    """Largest value of each column in each row: [N, D] -> [B, D]; -3e38 for an empty row."""
    return torch.segment_reduce(x_ND, "max", lengths=lengths_B, axis=0, unsafe=True, initial=LOWEST)


def segment_softmax(x_ND: Tensor, lengths_B: Tensor) -> Tensor:
    """Softmax over the values of each row, column by column.

    Args:
        x_ND: [N, D], float32 or wider; values down to -3e38 stand for those that do not count.
        lengths_B: values per row, integer [B].

    Returns:
        [N, D]; the columns of a row sum to 1.
    """
    # The largest value only keeps exp in range: the result does not depend on it, so it needs no gradient.
    shifted_ND = x_ND - repeat_rows(segment_max(x_ND.detach(), lengths_B), lengths_B, x_ND)
    powers_ND = torch.exp(shifted_ND)
    return powers_ND / repeat_rows(segment_sum(powers_ND, lengths_B), lengths_B, x_ND)
