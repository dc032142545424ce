"""The target's part once a row; plain ATen, for traced graphs, other devices and autocast."""

# B rows, N steps of all rows, D width, H outputs
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.ops.jagged.fused import repeat_rows


def parts_of(w_H4D: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of the target, [H, D], and of [k, q * k], [H, 2 D]."""
    w_q, w_k, w_d, w_p = w_H4D.chunk(4, dim=1)
    return w_q + w_d, torch.cat([w_k - w_d, w_p], dim=1)


def target_linear(
    query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor, w_H4D: Tensor, b_H: Tensor | None = None
) -> Tensor:
    """(W_q + W_d) q + b once a row, and [W_k - W_d, W_p] [k, q * k] for each step: [N, H]."""
    w_query, w_step = parts_of(w_H4D)
    of_target_NH = repeat_rows(F.linear(query_BD, w_query, b_H), lengths_B, steps_ND)
    q_ND = repeat_rows(query_BD, lengths_B, steps_ND)
    # The very product of fused.py, so that an exported model has the bits of the trained one.
    return torch.addmm(of_target_NH, torch.cat([steps_ND, q_ND * steps_ND], dim=-1), w_step.t())
