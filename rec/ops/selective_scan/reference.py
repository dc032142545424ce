"""Readable truth of the selective scan: PyTorch, step after step.

Differentiable, of any floating dtype and on any device; written so that TorchScript takes it too, which is how it is
exported.
"""

# B rows, N steps of all rows, E channels, S states of a channel, K rows still running
from __future__ import annotations

import torch
from torch import Tensor

from rec.ops.jagged import position_of_each, row_of_each


def scan_with_states(
    u_NE: Tensor,
    delta_NE: Tensor,
    A_ES: Tensor,
    B_NS: Tensor,
    C_NS: Tensor,
    D_E: Tensor,
    lengths_B: Tensor,
    initial_BES: Tensor,
) -> tuple[Tensor, Tensor]:
    """`selective_scan` from the states `initial_BES` on: outputs [N, E], states after the last steps [B, E, S]."""
    lengths_B = lengths_B.to(torch.int64)
    # Longest rows first: those that still run are the first ones, and no state is copied to leave one out. Steps in the
    # order in which they are read, so that the loop cuts slices: an index a step would make the backward quadratic.
    order_B = torch.argsort(lengths_B, descending=True, stable=True)
    rank_B = torch.argsort(order_B)
    position_N = position_of_each(lengths_B, u_NE)
    order_N = torch.argsort(position_N * lengths_B.shape[0] + rank_B[row_of_each(lengths_B, u_NE)])
    running: list[int] = torch.bincount(position_N).tolist()
    u = torch.split(u_NE.index_select(0, order_N), running)
    delta = torch.split(delta_NE.index_select(0, order_N), running)
    B, C = torch.split(B_NS.index_select(0, order_N), running), torch.split(C_NS.index_select(0, order_N), running)
    h_KES = initial_BES.index_select(0, order_B)
    outputs, finals = [u_NE[:0]], [h_KES[:0]]
    for t in range(len(running)):
        finals.append(h_KES[running[t] :])
        decay_KES = torch.exp(delta[t].unsqueeze(2) * A_ES)
        h_KES = decay_KES * h_KES[: running[t]] + (delta[t] * u[t]).unsqueeze(2) * B[t].unsqueeze(1)
        outputs.append(torch.bmm(h_KES, C[t].unsqueeze(2)).squeeze(2) + D_E * u[t])
    finals.append(h_KES)
    # Rows that ended early were put aside first.
    finals.reverse()
    y_NE = torch.empty_like(u_NE).index_copy(0, order_N, torch.cat(outputs))
    h_BES = torch.empty_like(initial_BES).index_copy(0, order_B, torch.cat(finals))
    return y_NE, h_BES


def selective_scan(
    u_NE: Tensor, delta_NE: Tensor, A_ES: Tensor, B_NS: Tensor, C_NS: Tensor, D_E: Tensor, lengths_B: Tensor
) -> Tensor:
    """h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t^T and y_t = h_t C_t + D u_t, row by row, from h_0 = 0.

    Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752, Eq. 2 and
    Algorithm 2; as in its code, B is discretised as delta B.

    Args:
        u_NE: inputs, jagged.
        delta_NE: step sizes, after the softplus.
        A_ES: negative.
        B_NS: how a step writes to the states.
        C_NS: how it reads them.
        D_E: weight of the input itself.
        lengths_B: steps of each row.

    Returns:
        [N, E]
    """
    initial_BES = torch.zeros((lengths_B.shape[0], A_ES.shape[0], A_ES.shape[1]), dtype=u_NE.dtype, device=u_NE.device)
    return scan_with_states(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E, lengths_B, initial_BES)[0]
