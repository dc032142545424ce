"""Positions and times of steps."""

from __future__ import annotations

import math

import torch

from rec.modules.positions import TIMES, Positions, sinusoid, steps_behind, time_buckets


def test_time_buckets_by_hand() -> None:
    # 1 + t / 60 = 1, 1.98, 2, 4, 1441 (a day), far above 2^32; no time is a bucket of its own.
    seconds = torch.tensor([0.0, 59.0, 60.0, 180.0, 86400.0, 1e15, math.inf, -1.0, math.nan])
    assert time_buckets(seconds, 60).tolist() == [0, 0, 1, 2, 10, 32, 32, 33, 33]
    assert time_buckets(torch.tensor([3.0]), 1.0).tolist() == [2]
    assert TIMES == 34


def test_steps_are_counted_from_the_last_one_that_counts() -> None:
    size = torch.tensor([3, 0, 2], dtype=torch.int32)
    values = torch.zeros(5, 1)
    assert steps_behind(size, size, values).tolist() == [2, 1, 0, 1, 0]
    assert steps_behind(size, size.clamp(max=2), values).tolist() == [1, 0, 0, 1, 0]


def test_the_sinusoid_by_hand_and_at_an_odd_width() -> None:
    table = sinusoid(3, 4)
    # Rates 1 and 10000^(-1/2) = 0.01
    want = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(table[2], torch.tensor(want))
    assert sinusoid(3, 5).shape == (3, 5)
    assert sinusoid(3, 1)[:, 0].tolist() == torch.sin(torch.arange(3.0)).tolist()


def test_learned_positions_are_trained_and_fixed_ones_are_no_parameters() -> None:
    assert [n for n, _ in Positions(3, 4).named_parameters()] == ["table_PD"]
    fixed = Positions(3, 4, learned=False)
    assert not fixed.state_dict()
    assert torch.equal(fixed(torch.tensor([2, 0])), sinusoid(3, 4)[[2, 0]])
