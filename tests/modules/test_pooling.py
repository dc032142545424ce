"""Steps of a row as one vector."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from rec.modules.pooling import pool_steps

STEPS = torch.tensor([[1.0, 9.0], [3.0, 4.0], [5.0, -6.0], [-7.0, -8.0]])
SIZE = torch.tensor([3, 0, 1], dtype=torch.int32)


@pytest.mark.parametrize(
    ("how", "most", "want"),
    [
        ("sum", 9, [[9, 7], [0, 0], [-7, -8]]),
        ("mean", 9, [[3, 7 / 3], [0, 0], [-7, -8]]),
        ("last", 9, [[5, -6], [0, 0], [-7, -8]]),
        ("max", 9, [[5, 9], [0, 0], [-7, -8]]),
        ("sum", 2, [[4, 13], [0, 0], [-7, -8]]),
        ("mean", 2, [[2, 6.5], [0, 0], [-7, -8]]),
        ("last", 2, [[3, 4], [0, 0], [-7, -8]]),
        ("max", 2, [[3, 9], [0, 0], [-7, -8]]),
    ],
)
def test_by_hand(how, most, want) -> None:
    kept = SIZE.clamp(max=most)
    torch.testing.assert_close(pool_steps(STEPS, SIZE, how, kept_B=kept), torch.tensor(want).float())
    if most == 9:
        torch.testing.assert_close(pool_steps(STEPS, SIZE, how), torch.tensor(want).float())
    assert pool_steps(STEPS[:0], SIZE * 0, how).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("how", ["sum", "mean", "last", "max"])
def test_what_does_not_count_may_be_anything_and_gets_no_gradient(how) -> None:
    steps = STEPS.clone()
    steps[2] = torch.inf
    steps.requires_grad_()
    out = pool_steps(steps, SIZE, how, kept_B=SIZE.clamp(max=2))
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert steps.grad[2].tolist() == [0, 0]
    assert steps.grad.abs().sum() > 0


@pytest.mark.parametrize("how", ["sum", "mean", "last", "max"])
def test_a_traced_graph_gives_the_same(how) -> None:
    graph = fx.symbolic_trace(lambda x, size: pool_steps(x, size, how, kept_B=size.clamp(max=2)))
    assert torch.equal(graph(STEPS, SIZE), pool_steps(STEPS, SIZE, how, kept_B=SIZE.clamp(max=2)))
