"""Readable truth of the first layer of a target attention."""

# B rows, N steps of all rows, D width, H outputs
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.ops.jagged.reference import repeat_rows


def target_linear(
    query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor, w_H4D: Tensor, b_H: Tensor | None = None
) -> Tensor:
    """As the paper writes it: the four columns side by side. [B, D], [N, D] -> [N, H]."""
    q_ND = repeat_rows(query_BD, lengths_B, steps_ND)
    return F.linear(torch.cat([q_ND, steps_ND, q_ND - steps_ND, q_ND * steps_ND], dim=-1), w_H4D, b_H)
