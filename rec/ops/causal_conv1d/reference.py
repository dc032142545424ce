"""Readable truth of the jagged causal convolution: shifted steps, ATen only, so it is also what is exported."""

from __future__ import annotations

# B rows, N steps of all rows, E channels, K taps
import torch.nn.functional as F
from torch import Tensor

from rec.ops.jagged import position_of_each


def causal_conv1d_silu(
    x_NE: Tensor, weight_EK: Tensor, bias_E: Tensor | None, lengths_B: Tensor, *, taps: int
) -> Tensor:
    """See `rec.ops.causal_conv1d.causal_conv1d_silu`."""
    steps = x_NE.shape[0]
    position_N1 = position_of_each(lengths_B, x_NE).unsqueeze(1)
    sum_NE = x_NE * weight_EK[:, taps - 1]
    for back in range(1, taps):
        # The step `back` before, where it is of the same row.
        earlier_NE = F.pad(x_NE, (0, 0, back, 0)).narrow(0, 0, steps)
        sum_NE = sum_NE + earlier_NE * (position_N1 >= back).to(x_NE.dtype) * weight_EK[:, taps - 1 - back]
    return F.silu(sum_NE if bias_E is None else sum_NE + bias_E)
