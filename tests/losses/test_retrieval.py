"""Losses of retrieval models: numbers by hand first, then what must not change them, then who gets a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses.contrast import Pairs
from rec.losses.retrieval import category_alignment
from tests.losses.helpers import CONTRASTIVE, SOFTMAX, build


@dataclass
class Rows:
    """As much of a batch as losses look at."""

    candidates: dict[str, Tensor]
    keys: dict[str, Tensor] = field(default_factory=dict)


def pairs(
    user: Tensor,
    items: Tensor,
    *,
    in_batch: bool = True,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    normalised: bool = False,
    logq_strength: float = 1.0,
    candidates: dict[str, Tensor] | None = None,
    keys: dict[str, Tensor] | None = None,
    most_hard: int = 2,
    **predictions: Tensor,
) -> Pairs:
    rows = torch.arange(len(user))
    masked = torch.stack([rows, rows]) if in_batch else torch.zeros(2, 0, dtype=torch.int64)
    return Pairs(
        predictions={"user_embedding": user, "item_embedding": items, **predictions},
        batch=Rows({"masked": masked} | (candidates or {}), keys or {}),
        weights=weights,
        in_batch=in_batch,
        most_hard=most_hard,
        temperature=temperature,
        normalised=normalised,
        logq_strength=logq_strength,
    )


def drawn(rows: int = 6, sampled: int = 4, width: int = 3, **settings) -> Pairs:
    draw = torch.Generator().manual_seed(rows)
    user = torch.randn(rows, width, generator=draw).requires_grad_()
    items = torch.randn(rows + sampled, width, generator=draw).requires_grad_()
    return pairs(user, items, **settings)


# scores [[6, 3], [9, 5]]: row 0 is right (6 against 3), row 1 is wrong (5 against 9)
ONE = pairs(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[6.0, 9.0], [3.0, 5.0]]))


def test_in_batch_softmax_by_hand():
    # softmax rows [.9526, .0474], [.9820, .0180]; positives on the diagonal
    expected = (-math.log(0.95257413) - math.log(0.01798621)) / 2
    assert build(SOFTMAX).sums(ONE).mean().item() == pytest.approx(expected, rel=1e-5)


def test_sampled_softmax_by_hand():
    # one row, positive 1, negatives 0 and log 2: -log(e / (e + 1 + 2))
    got = pairs(torch.tensor([[1.0]]), torch.tensor([[1.0], [0.0], [math.log(2)]]), in_batch=False)
    assert build(SOFTMAX).sums(got).mean().item() == pytest.approx(math.log(math.e + 3) - 1, rel=1e-6)


def test_bce_and_bpr_by_hand():
    # positive log 3 (sigmoid 3/4), negatives 0 (1/2) and log 3 (3/4)
    user, items = torch.tensor([[math.log(3)]]), torch.tensor([[1.0], [0.0], [1.0]])
    got = pairs(user, items, in_batch=False)
    bce = (-math.log(0.75) - math.log(0.5) - math.log(0.25)) / 3
    assert build("binary_cross_entropy {}").sums(got).mean().item() == pytest.approx(bce, rel=1e-6)
    bpr = (-math.log(0.75) - math.log(0.5)) / 2
    assert build("bpr_loss {}").sums(got).mean().item() == pytest.approx(bpr, rel=1e-6)


def test_gbce_by_hand():
    # 2 negatives of 4: a = 1/2; t = .75: beta = .5 (.75 (1 - 2) + 2) = .625
    user, items = torch.tensor([[math.log(3)]]), torch.tensor([[1.0], [0.0], [1.0]])
    got = pairs(user, items, in_batch=False)
    expected = (-0.625 * math.log(0.75) - math.log(0.5) - math.log(0.25)) / 3
    assert build("gbce_loss { num_items: 5 }").sums(got).mean().item() == pytest.approx(expected, rel=1e-6)
    plain = build("binary_cross_entropy {}").sums(got).mean()
    torch.testing.assert_close(build("gbce_loss { num_items: 5 calibration: 0 }").sums(got).mean(), plain)


def test_info_nce_divides_cosines():
    # cosines 1 and 0 at temperature .5, whatever the lengths are
    got = pairs(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]]), in_batch=False, temperature=9.0)
    expected = math.log(1 + math.exp(-2))
    assert build("info_nce { temperature: 0.5 }").sums(got).mean().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("most_hard", [2, 0])
def test_hard_negatives_are_compared_with_their_row_only(most_hard: int):
    # rows 2, one shared negative, hard ones of row 1: scores 0, 0 for row 0; 0, 0, log 3 for row 1
    hard = torch.tensor([[1], [0]])
    user, items = torch.ones(2, 1), torch.tensor([[0.0], [0.0], [0.0], [math.log(3)]])
    got = pairs(user, items, in_batch=False, candidates={"hard": hard}, most_hard=most_hard)
    expected = (math.log(2) + math.log(5)) / 2
    assert build(SOFTMAX).sums(got).mean().item() == pytest.approx(expected, rel=1e-6)
    assert got.contrast.num_negatives_B.tolist() == [1, 2]
    assert got.contrast.ranks().tolist() == [2, 3]


@pytest.mark.parametrize("text", [*CONTRASTIVE, "amm_loss {}", 'category_alignment_loss { grouping_key: "cate" }'])
def test_a_batch_whose_weights_are_all_zero_costs_nothing(text):
    made = drawn(weights=torch.zeros(6), keys={"cate": torch.tensor([0, 0, 1, 1, 2, 2])})
    vectors = [made.predictions[name] for name in ("user_embedding", "item_embedding")]
    augmented = {name: torch.ones(6, 3, requires_grad=True) for name in ("user_augmented", "item_augmented")}
    made = replace(made, predictions={**made.predictions, **augmented})
    loss = build(text).sums(made).mean()
    assert loss.item() == 0
    loss.backward()
    for tensor in (*vectors, *augmented.values()):
        assert tensor.grad is None or torch.equal(tensor.grad, torch.zeros_like(tensor))


def test_a_masked_pair_is_no_negative_of_any_loss():
    for text in CONTRASTIVE:
        whole = drawn(in_batch=False)
        user, items = whole.predictions["user_embedding"], whole.predictions["item_embedding"]
        masked = torch.stack([torch.arange(6), torch.full((6,), 2)])
        without = pairs(user, torch.cat([items[:8], items[9:]]), in_batch=False)
        got = pairs(user, items, in_batch=False, candidates={"masked": masked})
        torch.testing.assert_close(build(text).sums(got).mean(), build(text).sums(without).mean())


def test_logq_of_uniform_draws_shifts_all_negatives_alike():
    whole = drawn(in_batch=False)
    shift = math.log(4 / 50)  # four draws of fifty items
    corrected = pairs(**_given(whole), in_batch=False, candidates={"log_count": torch.full((4,), shift)})
    logits = whole.contrast
    scores = torch.cat([logits.positive_B[:, None], logits.negatives - shift], dim=1)
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(build(SOFTMAX).sums(corrected).mean(), expected)
    # and it changes no order
    assert torch.equal(corrected.contrast.ranks(), whole.contrast.ranks())


def _given(made: Pairs) -> dict[str, Tensor]:
    return {"user": made.predictions["user_embedding"], "items": made.predictions["item_embedding"]}


def test_corrected_samples_estimate_the_softmax_over_the_catalogue():
    draw = torch.Generator().manual_seed(0)
    catalogue = torch.randn(200, 4, generator=draw)
    user, own = 0.3 * torch.randn(1, 4, generator=draw), 17
    weights = torch.rand(200, generator=draw) + 0.05
    q = weights / weights.sum()
    full = torch.nn.functional.cross_entropy(user @ catalogue.t(), torch.tensor([own]))
    for count, near in ((2000, 0.1), (200_000, 0.01)):  # a few standard deviations of the mean over the draws
        numbers = torch.multinomial(q, count, replacement=True, generator=draw)
        masked = torch.nonzero(numbers == own)[:, 0]
        got = pairs(
            user,
            torch.cat([catalogue[[own]], catalogue[numbers]]),
            in_batch=False,
            candidates={
                "log_count": torch.log(count * q[numbers]),
                "masked": torch.stack([torch.zeros_like(masked), masked]),
            },
        )
        assert build(SOFTMAX).sums(got).mean().item() == pytest.approx(full.item(), abs=near)


def test_logq_is_subtracted_as_many_times_as_its_strength_by_hand():
    # One row: its positive scores 2, two drawn items 1 and 3, expected .5 and 4 times.
    one = torch.ones(1, 1)
    items, count = torch.tensor([[2.0], [1.0], [3.0]]), torch.tensor([0.5, 4.0])
    for strength in (1.0, 1.5, 0.5):
        got = pairs(one, items, in_batch=False, candidates={"log_count": count.log()}, logq_strength=strength)
        rest = math.exp(1) / 0.5**strength + math.exp(3) / 4**strength
        expected = -math.log(math.exp(2) / (math.exp(2) + rest))
        assert build(SOFTMAX).sums(got).mean().item() == pytest.approx(expected, rel=1e-6)
        assert got.contrast.ranks().tolist() == [2]


@pytest.mark.parametrize("text", [*CONTRASTIVE, "amm_loss {}"])
def test_scale_depends_on_neither_batch_size_nor_weight_scale(text: str):
    draw = torch.Generator().manual_seed(0)
    user, own = torch.randn(2, 5, 3, generator=draw)
    negatives, weights = torch.randn(7, 3, generator=draw), torch.rand(5, generator=draw)

    def mean(times: int, scale: float) -> float:
        augmented = {"user_augmented": user.repeat(times, 1), "item_augmented": own.repeat(times, 1)}
        items = torch.cat([own.repeat(times, 1), negatives])
        made = pairs(user.repeat(times, 1), items, in_batch=False, weights=weights.repeat(times) * scale, **augmented)
        return build(text).sums(made).mean().item()

    assert mean(5, 1.0) == pytest.approx(mean(1, 1.0), rel=1e-5)
    assert mean(1, 100.0) == pytest.approx(mean(1, 1.0), rel=1e-5)


def test_corrected_in_batch_softmax_does_not_grow_with_the_batch():
    # Rows drawn with replacement from ten items: each batch size estimates the same sum over the catalogue.
    draw = torch.Generator().manual_seed(0)
    catalogue, means = torch.randn(10, 3, generator=draw), []
    for rows in (500, 4000):
        number = torch.randint(10, (rows,), generator=draw)
        same = torch.nonzero(number[:, None] == number[None, :]).t()
        user = catalogue[number] + 0.1 * torch.randn(rows, 3, generator=draw)
        count = torch.full((rows,), math.log((rows - 1) / 10))
        made = pairs(user, catalogue[number], candidates={"masked": same, "log_count": count})
        means.append(build(SOFTMAX).sums(made).mean().item())
    assert means[0] == pytest.approx(means[1], rel=0.02)


@pytest.mark.parametrize("text", CONTRASTIVE)
def test_rows_of_weight_zero_give_no_gradient_as_positives(text: str):
    made = drawn(in_batch=False, weights=torch.tensor([0.0, 1, 0, 1, 1, 0]))
    build(text).sums(made).mean().backward()
    grad = made.predictions["user_embedding"].grad
    assert torch.equal(grad[[0, 2, 5]], torch.zeros(3, 3))
    assert (grad[[1, 3, 4]].abs().amax(dim=1) > 0).all()


def test_half_precision_embeddings_are_compared_in_float32():
    made = drawn(in_batch=False)
    half = pairs(*(x.detach().bfloat16() for x in _given(made).values()), in_batch=False, temperature=0.03)
    same = pairs(*(x.detach().bfloat16().float() for x in _given(made).values()), in_batch=False, temperature=0.03)
    assert torch.equal(build(SOFTMAX).sums(half).numerator, build(SOFTMAX).sums(same).numerator)


class TestAMM:
    # three pairs in two dimensions; the items' rows go on with a negative, which takes no part
    user = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    item = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.8, 0.6]])
    a_user = torch.tensor([[0.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    a_item = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 4.0], [9.0, 9.0]])

    def made(self, *, normalised: bool, weights: Tensor | None = None, grad: bool = False) -> Pairs:
        tensors = [x.clone().requires_grad_(grad) for x in (self.user, self.item, self.a_user, self.a_item)]
        user, item, a_user, a_item = tensors
        return pairs(user, item, normalised=normalised, weights=weights, user_augmented=a_user, item_augmented=a_item)

    def test_three_pairs_by_hand(self):
        # n(a_user) = (0,1), (1,0), (r,r), r = .7071, against the items (0,1), (0,1), (1,0): 0, 2, 2 - 2 r
        # n(a_item) = (1,0), (0,1), (0,1) against the users (1,0), (0,1), (.6,.8): 0, 0, .4
        expected = 0.5 * (4 - math.sqrt(2)) / 3 + 0.25 * 0.4 / 3
        got = build("amm_loss { user_weight: 0.5 item_weight: 0.25 }").sums(self.made(normalised=True))
        assert got.mean().item() == pytest.approx(expected, rel=1e-6)

    def test_without_norm_as_the_towers(self):
        # (0,1), (3,-1), (0,1): 1, 10, 1; items: (4,0), (0,0), (-.6,3.2): 16, 0, 10.6
        got = build("amm_loss {}").sums(self.made(normalised=False))
        assert got.mean().item() == pytest.approx(0.5 * (12 + 26.6) / 3, rel=1e-6)

    def test_weights_by_hand(self):
        got = build("amm_loss { item_weight: 0 }").sums(
            self.made(normalised=True, weights=torch.tensor([5.0, 3.0, 0.0]))
        )
        assert got.mean().item() == pytest.approx(0.5 * 3 * 2 / 8, rel=1e-6)

    def test_towers_get_no_gradient(self):
        made = self.made(normalised=True, grad=True)
        total = build("amm_loss {}").sums(made).mean()
        inputs = [made.predictions[n] for n in ("user_embedding", "item_embedding", "user_augmented", "item_augmented")]
        user, item, a_user, a_item = torch.autograd.grad(total, inputs, allow_unused=True)
        assert user is None
        assert item is None
        assert a_user.abs().max() > 0
        assert a_item[:3].abs().max() > 0
        assert torch.equal(a_item[3], torch.zeros(2))

    def test_a_model_without_augmented_vectors_is_told(self):
        with pytest.raises(ConfigError, match='returns no "user_augmented" for amm_loss; it returns: item_embedding'):
            build("amm_loss {}").sums(ONE)


class TestCategoryAlignment:
    def test_by_hand(self):
        # category 1 (major): x -1, 0, 1, covariance [[1, 0], [0, 0]]; category 2: y 0, 2, covariance [[0, 0], [0, 2]];
        # category 3 has one row. |.|^2 = 1 + 4
        items = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [7.0, 7.0]])
        assert category_alignment(items, torch.tensor([1, 1, 1, 2, 2, 3])).item() == pytest.approx(5.0)

    def test_equals_torch_cov(self):
        items = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        keys = torch.arange(30) % 7 // 2
        covariances = [torch.cov(items[keys == k].t()) for k in range(4)]
        major = int(torch.bincount(keys).argmax())
        expected = sum((c - covariances[major]).square().sum() for c in covariances)
        torch.testing.assert_close(category_alignment(items, keys), expected)

    def test_one_category_is_zero_with_a_zero_gradient(self):
        made = drawn(keys={"cate": torch.zeros(6, dtype=torch.int64)})
        total = build('category_alignment_loss { grouping_key: "cate" }').sums(made).mean()
        total.backward()
        assert total.item() == 0
        assert torch.equal(made.predictions["item_embedding"].grad, torch.zeros(10, 3))


def test_ranks_count_ties_against_the_positive():
    made = pairs(torch.ones(2, 1), torch.tensor([[1.0], [2.0], [1.0], [0.0]]))
    # row 0: 1 against 2, 1, 0; row 1: 2 against 1, 1, 0
    assert made.contrast.ranks().tolist() == [3, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("softmax_cross_entropy { label_smoothing: 0.1 }", "label_smoothing of a retrieval model"),
        ("binary_cross_entropy { label_smoothing: 0.1 }", "label_smoothing has no effect"),
        ("info_nce { temperature: 0 }", "temperature is 0, expected > 0"),
        ("gbce_loss { num_items: 1 }", "num_items is 1"),
        ("gbce_loss { num_items: 9 calibration: 2 }", r"calibration is 2, expected within \[0, 1\]"),
        ("amm_loss { user_weight: -1 }", "user_weight is -1"),
        ('category_alignment_loss { grouping_key: "c" weight: -1 }', "weight is -1"),
        ("l2_loss {}", "no retrieval loss is built from message L2Loss"),
    ],
)
def test_wrong_settings_are_told(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build(text)


# Users of two interests: (1, 0) and (0, 1); (2, 0) and (0, 0). Items (3, 1), (0, 4), and one drawn, (1, 2).
# Scores by the nearest interest: [[3, 4, 2], [6, 0, 2]].
INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]]])
TAKEN = torch.tensor([[3.0, 1.0], [0.0, 4.0], [1.0, 2.0]])


def test_the_nearest_interest_scores_by_hand():
    made = pairs(INTERESTS, TAKEN)
    assert made.contrast.positive_B.tolist() == [3, 0]
    assert made.contrast.negatives.tolist() == [[-math.inf, 4, 2], [6, -math.inf, 2]]
    assert made.contrast.ranks().tolist() == [2, 3]
    expected = math.log(1 + math.exp(1) + math.exp(-1)) + math.log(1 + math.exp(6) + math.exp(2))
    assert build(SOFTMAX).sums(made).mean().item() == pytest.approx(expected / 2, rel=1e-6)
    halved = pairs(INTERESTS, TAKEN, candidates={"log_count": torch.full((3,), math.log(0.5))})
    expected = math.log(1 + 2 * (math.exp(1) + math.exp(-1))) + math.log(1 + 2 * (math.exp(6) + math.exp(2)))
    assert build(SOFTMAX).sums(halved).mean().item() == pytest.approx(expected / 2, rel=1e-6)


def test_a_batch_may_have_no_hard_negative():
    got = pairs(
        torch.ones(2, 1), torch.ones(3, 1), candidates={"hard": torch.zeros(2, 0, dtype=torch.int64)}, most_hard=0
    )
    assert got.contrast.own_BK.tolist() == [[1], [1]]


def test_hard_negatives_are_scored_by_the_nearest_interest():
    hard = torch.tensor([[1], [1]])
    made = pairs(INTERESTS, torch.cat([TAKEN, torch.tensor([[5.0, 9.0]])]), candidates={"hard": hard})
    assert made.contrast.own_BK.tolist() == [[3, -math.inf, -math.inf], [0, -math.inf, 10]]


@pytest.mark.parametrize("text", CONTRASTIVE)
def test_a_user_of_equal_interests_is_a_user_of_one_vector(text: str):
    made = drawn(candidates={"log_count": torch.linspace(-2, 0, 10)})
    user, items = made.predictions["user_embedding"], made.predictions["item_embedding"]
    several = user.detach().unsqueeze(1).expand(-1, 3, -1).clone().requires_grad_()
    same = pairs(several, items, candidates={"log_count": torch.linspace(-2, 0, 10)})
    want, got = build(text).sums(made).mean(), build(text).sums(same).mean()
    torch.testing.assert_close(got, want)
    got.backward()
    assert several.grad.abs().max() > 0
