"""The first layer of a target attention: split and fused against the four columns of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from rec.ops.target_linear import reference, split, target_linear
from rec.ops.target_linear.fused import TargetLinear


def inputs(lengths: list[int], *, width: int = 3, units: int = 5, bias: bool = True, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype).requires_grad_()  # noqa: E731
    size = torch.tensor(lengths, dtype=torch.int32)
    return (
        draw(len(lengths), width),
        draw(sum(lengths), width),
        size,
        draw(units, 4 * width),
        draw(units) if bias else None,
    )


def test_one_step_by_hand() -> None:
    q, k, w = torch.tensor([[2.0]]), torch.tensor([[3.0]]), torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
    # 2 + 30 + 100 (2 - 3) + 1000 (2 * 3) + 0.5
    for function in (reference, split, target_linear):
        assert function(q, k, torch.tensor([1]), w, torch.tensor([0.5])).tolist() == [[5932.5]]


@pytest.mark.parametrize("lengths", [[2, 0, 3], [0, 0], [1], [0], [0, 63, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("function", [split, TargetLinear.apply], ids=["split", "fused"])
def test_outputs_and_every_gradient_are_those_of_the_four_columns(lengths, bias, function) -> None:
    ours, theirs = inputs(lengths, bias=bias), inputs(lengths, bias=bias)
    a, b = function(*ours), reference(*theirs)
    torch.testing.assert_close(a, b)
    g = torch.randn(a.shape, generator=torch.Generator().manual_seed(1), dtype=a.dtype)
    a.backward(g)
    b.backward(g)
    for x, y in zip(ours, theirs, strict=True):
        if x is not None and x.is_floating_point():
            torch.testing.assert_close(x.grad, y.grad)


def test_gradcheck() -> None:
    q, k, size, w, b = inputs([2, 0, 1])
    assert torch.autograd.gradcheck(lambda *t: TargetLinear.apply(t[0], t[1], size, t[2], t[3]), (q, k, w, b))


@pytest.mark.parametrize("wanted", range(4))
def test_only_the_gradients_that_are_asked_for_are_computed(wanted: int) -> None:
    q, k, size, w, b = inputs([2, 1], dtype=torch.float32)
    asked = [q, k, w, b]
    for i, t in enumerate(asked):
        t.requires_grad_(i == wanted)
    target_linear(q, k, size, w, b).sum().backward()
    assert [t.grad is not None for t in asked] == [i == wanted for i in range(4)]


def test_training_takes_the_fused_form_and_autocast_does_not() -> None:
    q, k, size, w, b = inputs([2, 1], dtype=torch.float32)
    assert "TargetLinear" in type(target_linear(q, k, size, w, b).grad_fn).__name__
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = target_linear(q, k, size, w, b)
    assert "TargetLinear" not in type(out.grad_fn).__name__
    # Numbers of order 5 in bf16 (8 bits).
    torch.testing.assert_close(out.float(), reference(q, k, size, w, b), atol=0.1, rtol=0.05)


def test_a_traced_graph_is_plain_operations_with_the_same_answer() -> None:
    q, k, size, w, b = (t.detach() for t in inputs([2, 0, 1], dtype=torch.float32))
    graph = fx.symbolic_trace(target_linear)
    assert all("rec" not in str(getattr(n.target, "__module__", "")) for n in graph.graph.nodes)
    torch.testing.assert_close(graph(q, k, size, w, b), reference(q, k, size, w, b))
