"""Sampled softmax: numbers by hand, then the fused form against the written one, outputs and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rec.ops.sampled_softmax import fused, sampled_softmax_sum
from rec.ops.sampled_softmax.reference import sampled_softmax_sum as reference

NONE = torch.zeros(0, dtype=torch.int64)


def test_by_hand():
    # one row: positive 0, negatives log 2 and 0: -log(1 / (1 + 2 + 1)) = log 4; weight 3
    user, shared = torch.tensor([[1.0]]), torch.tensor([[math.log(2)], [0.0]])
    got = sampled_softmax_sum(torch.zeros(1, 1), user, shared, None, NONE, NONE, torch.tensor([3.0]))
    assert got.item() == pytest.approx(3 * math.log(4), rel=1e-6)


def test_offsets_and_masks_by_hand():
    # offset log 2 makes the first negative's share 1; the second is masked: -log(1 / 2)
    user, shared = torch.tensor([[1.0]]), torch.tensor([[math.log(2)], [0.0]])
    offset = torch.tensor([math.log(2), 0.0])
    pair = torch.tensor([0]), torch.tensor([1])
    got = sampled_softmax_sum(torch.zeros(1, 1), user, shared, offset, *pair, torch.ones(1))
    assert got.item() == pytest.approx(math.log(2), rel=1e-6)


def inputs(rows: int, shared: int, own: int, *, offset: bool, pairs: int) -> list[Tensor | None]:
    draw = torch.Generator().manual_seed(rows * 31 + shared)
    own_BK = torch.randn(rows, own, generator=draw)
    if own > 1:
        own_BK[::2, -1] = float("-inf")
    return [
        own_BK.requires_grad_(),
        (3 * torch.randn(rows, 8, generator=draw)).requires_grad_(),
        torch.randn(shared, 8, generator=draw).requires_grad_(),
        torch.randn(shared, generator=draw) if offset else None,
        torch.randint(0, max(rows, 1), (pairs,), generator=draw),
        torch.randint(0, max(shared, 1), (pairs,), generator=draw),
        torch.rand(rows, generator=draw),
    ]


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (33, 40, 1), (64, 0, 2), (0, 4, 1)])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("block", [1 << 18, 90])
def test_fused_equals_reference_with_every_gradient(
    shape: tuple[int, int, int], offset: bool, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fused, "_BLOCK", block)
    rows, shared, _ = shape
    given = inputs(*shape, offset=offset, pairs=4 * rows if rows and shared else 0)
    want, got = reference(*given), sampled_softmax_sum(*given)
    # fp32 sums of a few hundred terms, in another order
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    leaves = given[:3]
    expected = torch.autograd.grad(2 * want, leaves, allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(torch.autograd.grad(2 * got, leaves), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_row_without_any_negative_costs_nothing_and_has_a_zero_gradient():
    given = inputs(3, 2, 1, offset=True, pairs=0)
    given[4], given[5] = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    total = sampled_softmax_sum(*given)
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-6)
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in given[:3])


def test_large_logits_stay_finite():
    user = torch.full((2, 1), 1e4, requires_grad=True)
    total = sampled_softmax_sum(torch.zeros(2, 1), user, torch.tensor([[1.0], [-1.0]]), None, NONE, NONE, torch.ones(2))
    total.backward()
    assert total.item() == pytest.approx(2e4)
    assert torch.isfinite(user.grad).all()


@pytest.mark.parametrize("counting", [[], [2], [0, 3, 4]])
def test_rows_of_weight_zero_are_as_if_they_were_not_there(counting: list[int]):
    given = inputs(5, 6, 2, offset=True, pairs=7)
    given[-1] = torch.zeros(5).index_fill(0, torch.tensor(counting, dtype=torch.int64), 0.5)
    want, got = reference(*given), sampled_softmax_sum(*given)
    torch.testing.assert_close(got, want)
    pairs = zip(torch.autograd.grad(got, given[:3]), torch.autograd.grad(want, given[:3]), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_weights_scale_rows():
    given = inputs(6, 5, 1, offset=False, pairs=3)
    whole = sampled_softmax_sum(*given)
    given[-1] = given[-1] * 10
    torch.testing.assert_close(sampled_softmax_sum(*given), whole * 10)


@pytest.mark.parametrize("shape", [(7, 5, 3), (9, 0, 1), (33, 40, 1)])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("block", [1 << 18, 90])
def test_fixed_negatives_count_as_shared_ones_and_get_no_gradient(
    shape: tuple[int, int, int], offset: bool, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fused, "_BLOCK", block)
    rows, shared, own = shape
    given = inputs(rows, shared + 11, own, offset=offset, pairs=4 * rows)
    fixed = given[2].detach()[shared:].requires_grad_()
    given[2] = given[2].detach()[:shared].requires_grad_()
    want, got = reference(*given, fixed), sampled_softmax_sum(*given, fixed)
    joined = [*given]
    joined[2] = torch.cat([given[2], fixed])
    torch.testing.assert_close(want, reference(*joined))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(want, given[:3], allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(torch.autograd.grad(got, given[:3], retain_graph=True), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.autograd.grad(got, [fixed], allow_unused=True) == (None,)
