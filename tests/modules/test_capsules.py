"""Dynamic routing: by hand, how many interests a history has, and what must change nothing."""

from __future__ import annotations

import math

import pytest
import torch

from rec.modules.capsules import LOWEST, B2ICapsule, InterestCapsules, repeat_first, route, squash


def capsules(**settings) -> B2ICapsule:
    torch.manual_seed(0)
    return B2ICapsule(4, **({"max_seq_len": 6, "high_dim": 3, "max_k": 3} | settings))


def steps(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 4, generator=draw), torch.tensor(lengths)


def test_squash_by_hand():
    # |z| = 5: 25/26 of length 1
    torch.testing.assert_close(squash(torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8]) * 25 / 26)
    torch.testing.assert_close(squash(torch.tensor([3.0, 4.0]), 0.5), torch.tensor([0.6, 0.8]) * math.sqrt(25 / 26))
    zero = torch.zeros(2, requires_grad=True)
    squash(zero, 0.2).sum().backward()
    assert torch.equal(squash(zero), zero)
    assert torch.isfinite(zero.grad).all()


def test_routing_by_hand():
    # Two steps c = (1, 0), (0, 2) and two interests; b = [[ln 3, 0], [0, 0]].
    low = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]])
    # w = [[3/4, 1/4], [1/2, 1/2]]; z_1 = (.75, 1), |z_1|^2 = 1.5625; z_2 = (.25, 1), |z_2|^2 = 1.0625
    z = torch.tensor([[0.75, 1.0], [0.25, 1.0]])
    length = torch.tensor([1.25, math.sqrt(1.0625)])
    factor = torch.tensor([1.5625 / 2.5625, 1.0625 / 2.0625]) / length
    u = z * factor[:, None]
    torch.testing.assert_close(route(low, logits, iterations=1, shared=True)[0], u)
    # b += <u_k, c_l>: step 1 sees the first column of u, step 2 twice the second
    b = logits[0] + torch.stack([u[:, 0], 2 * u[:, 1]])
    w = torch.exp(b) / torch.exp(b).sum(dim=1, keepdim=True)
    second = torch.stack([torch.stack([w[0, k], 2 * w[1, k]]) for k in range(2)])
    square = second.square().sum(dim=1, keepdim=True)
    expected = square / (1 + square) * second / square.sqrt()
    torch.testing.assert_close(route(low, logits, iterations=2, shared=True)[0], expected)
    # the same said to each interest by itself
    own = low.unsqueeze(2).expand(-1, -1, 2, -1)
    torch.testing.assert_close(route(own, logits, iterations=2, shared=False)[0], expected)


def test_only_the_last_iteration_has_a_gradient():
    low = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(1))
    route(low, logits, iterations=3, shared=True).square().sum().backward()
    # the weights of the last iteration, as constants
    fixed = low.detach()
    for _ in range(2):
        u = route(fixed, logits, iterations=1, shared=True)
        logits = logits + fixed @ u.transpose(1, 2)
    again = low.detach().requires_grad_()
    squash(torch.softmax(logits, dim=2).transpose(1, 2) @ again).square().sum().backward()
    torch.testing.assert_close(low.grad, again.grad)


@pytest.mark.parametrize(
    ("length", "count"), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (15, 3), (16, 4), (31, 4), (99, 4)]
)
def test_a_history_has_as_many_interests_as_the_logarithm_of_its_length(length: int, count: int):
    # max(1, min(4, floor(log2 length)))
    layer = capsules(max_seq_len=64, max_k=4)
    high, has = layer(*steps(length))
    assert has[0].sum() == count
    assert (high[0, count:] == 0).all()
    assert capsules(max_seq_len=64, max_k=4, const_caps_num=True)(*steps(length))[1].all()


def test_one_interest_takes_the_sum_of_the_steps():
    layer = capsules(max_k=1)
    x, lengths = steps(3, 2)
    high, _ = layer(x, lengths)
    sums = torch.stack([part.sum(dim=0) for part in (x @ layer.bilinear).split([3, 2])])
    torch.testing.assert_close(high[:, 0], squash(sums))


def test_interests_are_the_same_at_every_call_and_in_every_model():
    x, lengths = steps(6, 3)
    one, two = capsules(), capsules()
    torch.manual_seed(5)
    assert torch.equal(one(x, lengths)[0], two.eval()(x, lengths)[0])
    other = B2ICapsule(4, max_seq_len=6, high_dim=3, max_k=3)
    assert torch.equal(other.start_LK, one.start_LK)
    # N(0, 1), whatever the seed of the run
    assert 0.4 < one.start_LK.std() < 1.6


def test_steps_of_other_rows_and_beyond_the_longest_change_nothing():
    layer = capsules()
    x, lengths = steps(4, 9, 0)
    whole, _ = layer(x, lengths)
    torch.testing.assert_close(layer(x[:4], torch.tensor([4]))[0][0], whole[0])
    torch.testing.assert_close(layer(x[4:10], torch.tensor([6]))[0][0], whole[1])
    assert (whole[2] == 0).all()


def test_interests_that_a_row_has_not_get_no_share():
    low = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    missing = torch.tensor([True, True, False])
    masked = route(low, torch.where(missing, logits, LOWEST), iterations=3, shared=True)
    torch.testing.assert_close(masked[:, :2], route(low, logits[..., :2], iterations=3, shared=True))
    assert (masked[:, 2] == 0).all()


def test_the_first_interest_stands_in_for_missing_ones():
    vectors = torch.arange(12.0).view(2, 3, 2)
    got = repeat_first(vectors, torch.tensor([[True, True, True], [True, False, True]]))
    assert got.tolist() == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [6, 7], [10, 11]]]


@pytest.mark.parametrize("by_place", [False, True])
def test_routing_with_a_matrix_for_each_interest(by_place: bool):
    torch.manual_seed(0)
    layer = InterestCapsules(4, places=3, width=2, num_interests=2, by_place=by_place)
    x, lengths = steps(2, 5, 0)
    got = layer(x, lengths)
    for row, part in enumerate([x[:2], x[2:5]]):  # the fourth and fifth step of row 1 do not count
        weight = layer.weight if by_place else layer.weight.expand(3, -1, -1)
        low = torch.stack([(e @ weight[place]).view(2, 2) for place, e in enumerate(part)])
        logits = torch.zeros(len(part), 2)
        for _ in range(3):
            share = torch.softmax(logits, dim=1)
            u = squash((share[:, :, None] * low).sum(dim=0))
            logits = logits + (low * u).sum(dim=2)
        torch.testing.assert_close(got[row], u)
    assert (got[2] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_k": 0}, "max_k is 0, expected at least 1"),
        ({"num_iters": 0}, "num_iters is 0"),
        ({"squash_pow": 0.0}, "squash_pow is 0, expected > 0"),
        ({"routing_logits_stddev": -1.0}, "routing_logits_stddev is -1"),
        ({"routing_init_method": "ones"}, 'routing_init_method is "ones"'),
        ({"routing_init_method": "zeros"}, "makes all interests the same"),
    ],
)
def test_what_is_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        capsules(**settings)
