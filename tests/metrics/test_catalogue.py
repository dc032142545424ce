"""Top-K metrics against a catalogue: by hand, and against ranking everything."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from rec.data.catalogue import Pairs
from rec.metrics.catalogue import CatalogueMetrics, TopKReport, draw_others
from rec.ops.running_top_k import RunningTopK


def pairs(lists: list[list[int]]) -> Pairs:
    users = np.repeat(np.arange(len(lists)), [len(x) for x in lists])
    return Pairs(users, np.array([i for x in lists for i in x], np.int64))


def cut(scores: Tensor, width: int) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, scores.shape[1], width):
        yield first, scores[:, first : first + width].clone()


def measure(
    scores, relevant, *, seen=None, width=3, block=100, unknown=None, filter_seen=True, **settings
) -> TopKReport:
    scores = torch.tensor(scores, dtype=torch.float32)
    metrics = CatalogueMetrics(items=scores.shape[1], **settings)
    for first in range(0, len(scores), block):
        users = slice(first, first + block)
        metrics.update(
            cut(scores[users], width),
            users=len(scores[users]),
            relevant=pairs(relevant[users]),
            unknown=None if unknown is None else np.array(unknown[users]),
            seen=None if seen is None else pairs(seen[users]),
            filter_seen=filter_seen,
        )
    return metrics.compute()


# Two users, five items. User 0 ranks 0 1 2 3 4 and wants 1 and 3: ranks 2 and 4; user 1 ranks 4 3 2 1 0, wants 4.
SCORES = [[5.0, 4, 3, 2, 1], [1.0, 2, 3, 4, 5]]
RELEVANT = [[3, 1], [4]]


def test_metrics_by_hand():
    found = measure(SCORES, RELEVANT, top_k=[1, 2, 4]).metrics
    gain = [1 / math.log2(rank + 1) for rank in (1, 2, 3, 4)]
    assert found == pytest.approx(
        {
            "recall_at_1": 1 / 2, "recall_at_2": (1 / 2 + 1) / 2, "recall_at_4": 1,
            "hr_at_1": 1 / 2, "hr_at_2": 1, "hr_at_4": 1,
            "ndcg_at_1": 1 / 2,
            "ndcg_at_2": (gain[1] / (gain[0] + gain[1]) + 1) / 2,
            "ndcg_at_4": ((gain[1] + gain[3]) / (gain[0] + gain[1]) + 1) / 2,
            "mrr_at_1": 1 / 2, "mrr_at_2": 3 / 4, "mrr_at_4": 3 / 4,
            "coverage_at_1": 2 / 5, "coverage_at_2": 4 / 5, "coverage_at_4": 1,
        }
    )  # fmt: skip


def test_seen_items_make_room_unless_they_are_relevant():
    # user 0 without item 0: ranks 1 and 3; the seen item 1 is relevant and stays
    found = measure(SCORES, RELEVANT, seen=[[0, 1], []], top_k=[1, 3])
    assert found.metrics["recall_at_1"] == (1 / 2 + 1) / 2
    assert found.metrics["recall_at_3"] == 1
    assert found.metrics["coverage_at_3"] == 4 / 5  # 1 2 3 and 4 3 2
    unfiltered = measure(SCORES, RELEVANT, seen=[[0, 1], []], filter_seen=False, top_k=[1, 3])
    assert unfiltered.metrics["recall_at_1"] == 1 / 2


def test_ties_count_against_the_relevant_item_wherever_it_stands():
    for item in range(4):
        found = measure([[7.0, 7, 7, 7]], [[item]], top_k=[1, 3, 4], width=2).metrics
        assert [found[f"hr_at_{k}"] for k in (1, 3, 4)] == [0, 0, 1]
    # both relevant items stand behind the two others: ranks 3 and 4
    found = measure([[7.0, 7, 7, 7]], [[0, 2]], top_k=[2, 3, 4]).metrics
    assert [found[f"recall_at_{k}"] for k in (2, 3, 4)] == [0, 0.5, 1]


def test_fewer_items_than_k_and_nothing_left():
    found = measure([[1.0, 2.0]], [[0]], top_k=[10]).metrics
    assert found["recall_at_10"] == found["coverage_at_10"] == 1
    assert found["mrr_at_10"] == 1 / 2
    left = measure([[1.0, 2.0]], [[0]], seen=[[1]], top_k=[10]).metrics
    assert left["mrr_at_10"] == 1
    assert left["coverage_at_10"] == 1 / 2


def test_items_that_the_catalogue_lacks_are_misses_and_users_without_any_are_left_out():
    found = measure([*SCORES, [1.0, 1, 1, 1, 1]], [[0], [4], []], unknown=[1, 0, 0], top_k=[1])
    assert found.metrics["recall_at_1"] == (1 / 2 + 1) / 2
    assert found.metrics["hr_at_1"] == 1
    assert found.metrics["ndcg_at_1"] == 1  # one place, and a relevant item on it
    assert (found.users, found.relevant, found.unknown, found.idle) == (2, 3, 1, 1)
    assert found.metrics["coverage_at_1"] == 2 / 5  # nobody asked for the third user's list


def test_an_item_named_twice_counts_once():
    once, twice = (measure(SCORES, [wanted, [4]], top_k=[2]) for wanted in ([1, 3], [1, 3, 1, 3]))
    assert once == twice


def test_nan_is_no_score():
    for scores in ([[math.nan, 1.0]], [[1.0, math.nan]]):
        with pytest.raises(ValueError, match="no numbers"):
            measure(scores, [[0]], top_k=[1])


def test_popularity_groups_by_hand():
    # Twenty items, the first without weight; ties in weight keep the order of the file.
    weights = np.array([0.0, *range(1, 20)])
    scores = np.zeros((1, 20))
    scores[0, [0, 19, 1]] = [3, 2, 1]
    found = measure(scores, [[0, 1, 18, 19]], weights=weights, top_k=[1, 3], width=7).groups
    assert found["cold items"] == {"items": 1, "relevant": 1, "recall_at_1": 1, "recall_at_3": 1}
    assert found["popularity 1"] == {"items": 2, "relevant": 1, "recall_at_1": 0, "recall_at_3": 1}
    # 19 warm items: the last tenth has one
    assert found["popularity 10"] == {"items": 1, "relevant": 1, "recall_at_1": 0, "recall_at_3": 1}
    assert found["popularity 9"]["recall_at_3"] == 0
    assert math.isnan(found["popularity 5"]["recall_at_3"])
    assert sum(group["items"] for group in found.values()) == 20
    assert measure(SCORES, RELEVANT, weights=np.ones(5), top_k=[1]).groups == {}


def test_users_who_saw_nothing_are_cold():
    found = measure(SCORES, RELEVANT, seen=[[0], []], top_k=[1])
    assert found.groups == {"cold users": {"users": 1, "relevant": 1, "recall_at_1": 1}}


def test_sampled_ranks_by_hand():
    # All four others are drawn where there are no more: ranks 2 and 4 become those among irrelevant items, 2 and 3.
    found = measure(SCORES, RELEVANT, sampled=4, top_k=[1, 2, 9]).metrics
    assert found["sampled4_hr_at_1"] == pytest.approx(1 / 3)
    assert found["sampled4_hr_at_2"] == pytest.approx(2 / 3)
    assert found["sampled4_mrr_at_2"] == pytest.approx((1 + 1 / 2) / 3)
    assert found["sampled4_ndcg_at_2"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    # among 4 everything is in the first 9
    assert "sampled4_hr_at_9" not in found


def test_drawn_items_are_others_and_each_may_be_drawn():
    rng = np.random.default_rng(0)
    counts = np.zeros(50, int)
    for _ in range(2000):
        drawn = draw_others(50, 10, np.array([3, 7, 11]), rng)
        assert len(np.unique(drawn)) == 10
        counts[drawn] += 1
    assert not counts[[3, 7, 11]].any()
    # 2000 * 10 / 47 = 425.5 expected, standard deviation 18.3
    assert np.delete(counts, [3, 7, 11]).min() > 340
    assert sorted(draw_others(5, 10, np.array([2]), rng)) == [0, 1, 3, 4]
    assert len(draw_others(50, 10, np.arange(30), rng)) == 10


def brute(scores: np.ndarray, relevant, seen, k: int) -> dict[str, float]:
    """Every list sorted as a whole, relevant items behind the others of their score."""
    sums = dict.fromkeys((f"{m}_at_{k}" for m in ("recall", "hr", "ndcg", "mrr")), 0.0)
    for row, wanted, had in zip(scores, relevant, seen, strict=True):
        may = [i for i in range(len(row)) if i in wanted or i not in had]
        order = sorted(may, key=lambda i: (-row[i], i in wanted))[:k]
        ranks = [place + 1 for place, item in enumerate(order) if item in wanted]
        sums[f"recall_at_{k}"] += len(ranks) / len(wanted)
        sums[f"hr_at_{k}"] += bool(ranks)
        dcg = sum(1 / math.log2(rank + 1) for rank in ranks)
        sums[f"ndcg_at_{k}"] += dcg / sum(1 / math.log2(n + 2) for n in range(min(k, len(wanted))))
        sums[f"mrr_at_{k}"] += 1 / ranks[0] if ranks else 0
    return {name: total / len(scores) for name, total in sums.items()}


@pytest.mark.parametrize(("levels", "width", "block"), [(1000, 7, 5), (4, 7, 1), (4, 64, 40), (1000, 1, 40)])
def test_equal_to_sorting_everything_in_any_blocks(levels: int, width: int, block: int):
    draw = np.random.default_rng(levels + width)
    scores = draw.integers(0, levels, (40, 64)).astype(float)
    relevant = [draw.choice(64, draw.integers(1, 9), replace=False).tolist() for _ in scores]
    seen = [draw.choice(64, draw.integers(0, 30), replace=False).tolist() for _ in scores]
    found = measure(
        scores,
        relevant,
        seen=seen,
        top_k=[1, 5, 20],
        width=width,
        block=block,
        sampled=20,
        seed=3,
        weights=np.arange(64.0),
    )
    for k in (1, 5, 20):
        for name, value in brute(scores, relevant, seen, k).items():
            assert found.metrics[name] == pytest.approx(value, abs=1e-12), name
    # draws and groups do not depend on how it was cut
    whole = measure(
        scores, relevant, seen=seen, top_k=[1, 5, 20], width=64, sampled=20, seed=3, weights=np.arange(64.0)
    )
    sampled = {name: value for name, value in whole.metrics.items() if name.startswith("sampled")}
    assert sampled
    assert {name: found.metrics[name] for name in sampled} == pytest.approx(sampled, abs=1e-12)
    np.testing.assert_equal(found.groups, whole.groups)
    if levels == 1000:  # without ties lists are the same, too
        assert found.metrics == pytest.approx(whole.metrics, abs=1e-12)


@pytest.mark.parametrize("k", [1, 10, 300])
@pytest.mark.parametrize("width", [1, 64, 130, 400, 1000])
def test_running_top_k_is_that_of_the_whole(k: int, width: int):
    scores = torch.rand(6, 1000, generator=torch.Generator().manual_seed(k))
    running = RunningTopK(6, k)
    for first, block in cut(scores, width):
        running.add(first, block)
    values, items = scores.topk(k, dim=1)
    assert torch.equal(running.scores, values)
    assert torch.equal(running.items, items)


def test_running_top_k_of_fewer_items_ends_in_nothing():
    running = RunningTopK(1, 4)
    running.add(0, torch.tensor([[1.0, float("-inf")]]))
    running.add(2, torch.zeros(1, 0))
    running.add(2, torch.tensor([[2.0]]))
    assert running.items.tolist() == [[2, 0, -1, -1]]
