"""Where, and how long ago, a step of a sequence was."""

# B rows, N steps of all rows, P positions, D width
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.ops.jagged import position_of_each, row_of_each

# Buckets 0 ... 32 of time, and one for a time that is not known.
MOST_TIME = 32
UNKNOWN_TIME = MOST_TIME + 1
TIMES = UNKNOWN_TIME + 1


def steps_behind(lengths_B: Tensor, kept_B: Tensor, values_N: Tensor) -> Tensor:
    """Steps from each step to the last one of its row that counts: int64 [N], 0 for that one and those behind it."""
    kept_N = kept_B.to(torch.int64).index_select(0, row_of_each(lengths_B, values_N))
    return (kept_N - 1 - position_of_each(lengths_B, values_N)).clamp(min=0)


def time_buckets(seconds_N: Tensor, unit: float) -> Tensor:
    """floor(log2(1 + seconds / unit)), at most 32; 33 for a negative number or none: int64 [N].

    Args:
        seconds_N: time that has gone by.
        unit: seconds.
    """
    known_N = seconds_N >= 0
    doublings_N = torch.log2(1 + torch.where(known_N, seconds_N, torch.zeros_like(seconds_N)) / unit)
    bucket_N = doublings_N.clamp(max=MOST_TIME).to(torch.int64)
    return torch.where(known_N, bucket_N, torch.zeros_like(bucket_N) + UNKNOWN_TIME)


def sinusoid(count: int, width: int) -> Tensor:
    """The sine and the cosine of p / 10000^(2 i / D), in turn: float32 [P, D]. Vaswani et al., 2017, section 3.5."""
    p_P1 = torch.arange(count, dtype=torch.float32).unsqueeze(1)
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    table_PD = torch.zeros(count, width)
    table_PD[:, 0::2] = torch.sin(p_P1 * rates)
    table_PD[:, 1::2] = torch.cos(p_P1 * rates[: width // 2])
    return table_PD


class Positions(nn.Module):
    """A vector for each of some positions.

    Args:
        count: P.
        width: D.
        learned: trained, starting N(0, 0.01²) as tables do: beside larger vectors what a step is would drown;
            otherwise the sinusoid itself.
    """

    table_PD: Tensor

    def __init__(self, count: int, width: int, *, learned: bool = True) -> None:
        super().__init__()
        if learned:
            self.table_PD = nn.Parameter(torch.empty(count, width))
            nn.init.normal_(self.table_PD, std=0.01)
        else:
            self.register_buffer("table_PD", sinusoid(count, width), persistent=False)

    def forward(self, at_N: Tensor) -> Tensor:
        """Positions, int64 [N], to vectors, [N, D]."""
        return F.embedding(at_N, self.table_PD, norm_type=2.0)
