"""Gated recurrent units over jagged rows: PyTorch, step after step, over the rows that still run.

Differentiable, of any floating dtype and on any device; written so that TorchScript takes it too.
"""

# B rows, N steps of all rows, H width of the state, K rows still running
from __future__ import annotations

import torch
from torch import Tensor


def attentional_gru(
    gates_NG: Tensor, weight_GH: Tensor, bias_G: Tensor, attention_N: Tensor, lengths_B: Tensor
) -> Tensor:
    """States of a GRU whose update gate is scaled by an attention, row by row from 0.

        r = sigmoid(W_r x + U_r h);  u = a sigmoid(W_u x + U_u h);  n = tanh(W_n x + r (U_n h + b_n))
        h = (1 - u) h + u n

    Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019, arXiv:1809.03672,
    Eq. 2-5 and 14-16. An attention of 1 is the plain GRU (in torch's words 1 - u is its z, and b_n its b_hn).

    Args:
        gates_NG: W x of every step with its bias, r, u and n side by side: [N, 3 H].
        weight_GH: U of r, u and n, one below the other: [3 H, H].
        bias_G: added to U h, [3 H].
        attention_N: a, [N].
        lengths_B: steps of each row, which sum to N.

    Returns:
        [N, H]
    """
    lengths_B = lengths_B.to(torch.int64)
    # Longest rows first: those that still run are the first ones.
    descending_B, order_B = torch.sort(lengths_B, descending=True, stable=True)
    starts_B = (torch.cumsum(lengths_B, 0) - lengths_B).index_select(0, order_B)
    longest = 0
    if lengths_B.shape[0] > 0:
        longest = int(descending_B[0].item())
    width = weight_GH.shape[1]
    h_KH = torch.zeros((lengths_B.shape[0], width), dtype=gates_NG.dtype, device=gates_NG.device)
    outputs, places = [gates_NG[:0, :width]], [order_B[:0]]
    for t in range(longest):
        running = int((descending_B > t).sum().item())
        n_K = starts_B[:running] + t
        h_KH = h_KH[:running]
        x_KG = gates_NG.index_select(0, n_K)
        s_KG = torch.addmm(bias_G, h_KH, weight_GH.t())
        ru_KG = torch.sigmoid(x_KG[:, : 2 * width] + s_KG[:, : 2 * width])
        new_KH = torch.tanh(x_KG[:, 2 * width :] + ru_KG[:, :width] * s_KG[:, 2 * width :])
        u_KH = ru_KG[:, width:] * attention_N.index_select(0, n_K).unsqueeze(1)
        h_KH = h_KH + u_KH * (new_KH - h_KH)
        outputs.append(h_KH)
        places.append(n_K)
    return torch.empty_like(gates_NG[:, :width]).index_copy(0, torch.cat(places), torch.cat(outputs))
