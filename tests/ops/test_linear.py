from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rec.ops.linear import linear
from rec.ops.linear.aligned import AlignedLinear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [4, 70])  # 70: written in rows of 80
@pytest.mark.parametrize(("rows", "inputs"), [(1, 1), (5, 7), (3, 16), (0, 5), (9, 33)])
def test_aligned_equals_torch_with_every_gradient(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    first = [draw(rows, inputs), draw(outputs, inputs), draw(outputs) if bias else None]
    second = [t.clone() if t is not None else None for t in first]
    grad, results = draw(rows, outputs), []
    for arguments, function in ((first, AlignedLinear.apply), (second, F.linear)):
        for t in arguments:
            if t is not None:
                t.requires_grad_()
        results.append(function(*arguments))
        results[-1].backward(grad)
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(first, second, strict=True):
        if ours is not None:
            # The same products; MKL may sum in another order for another row stride.
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_an_input_without_gradient_gets_none() -> None:
    x, w = torch.randn(3, 5), torch.randn(2, 5, requires_grad=True)
    AlignedLinear.apply(x, w, None).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(w.grad, x.sum(0).expand(2, 5))


def test_awkward_widths_take_the_aligned_gradient_and_round_ones_do_not() -> None:
    w = torch.randn(4, 33, requires_grad=True)
    assert "AlignedLinear" in type(linear(torch.randn(2, 33, requires_grad=True), w).grad_fn).__name__
    wide = torch.randn(70, 33, requires_grad=True)
    assert linear(torch.randn(2, 33, requires_grad=True), wide).stride() == (80, 1)
    w = torch.randn(4, 32, requires_grad=True)
    assert "AlignedLinear" not in type(linear(torch.randn(2, 32, requires_grad=True), w).grad_fn).__name__


def test_leading_dimensions_and_autocast_work() -> None:
    x, w = torch.randn(2, 3, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    assert linear(x, w).shape == (2, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x[0], w).dtype == torch.bfloat16


def test_an_activation_may_change_a_wide_output_in_place() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    first = [draw(5, 33).requires_grad_(), draw(70, 33).requires_grad_(), draw(70).requires_grad_()]
    second = [t.detach().clone().requires_grad_() for t in first]
    torch.relu_(linear(*first)).sum().backward()
    torch.relu(F.linear(*second)).sum().backward()
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
