from __future__ import annotations

import numpy as np
import pytest

from rec.data.plan import Plan
from rec.data.source import Chain

CHAINS = tuple(Chain(file=i // 2, part=i % 2, rows=rows, first=0) for i, rows in enumerate([7, 13, 1, 20, 2, 9]))


def stream(plan: Plan, epoch: int) -> list[tuple[int, int, int]]:
    """(file, part, row) of every row of a rank's epoch in order of delivery."""
    order = plan.order(epoch)
    rows = []
    for index in range(plan.windows):
        first, last = plan.window_rows(index)
        window = [(s.chain.file, s.chain.part, row) for s in order.spans(first, last) for row in range(s.start, s.stop)]
        permutation = plan.permutation(epoch, first, last - first)
        rows += window if permutation is None else [window[i] for i in permutation]
    return rows


def test_two_ranks_split_fifty_three_rows_by_hand():
    # 52 + 1 rows: ranks take 27 and 25 + 1 = 26; batches of 9: 3 each.
    plans = [Plan(CHAINS[:5] + (Chain(9, 9, 10, 0),), 9, rank=rank, world=2) for rank in range(2)]
    assert [plan.range for plan in plans] == [(0, 27), (27, 53)]
    assert [plan.batches for plan in plans] == [3, 3]
    assert [plan.steps for plan in plans] == [3, 3]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 60])
@pytest.mark.parametrize("batch_size", [1, 4, 52, 100])
def test_each_row_comes_once_over_ranks(shuffle, world, batch_size):
    plans = [Plan(CHAINS, batch_size, shuffle, buffer=3, seed=5, rank=rank, world=world) for rank in range(world)]
    rows = [row for plan in plans for row in stream(plan, 1)]
    assert len(rows) == len(set(rows)) == 52
    assert len({plan.steps for plan in plans}) == 1
    assert all(plan.steps - plan.batches in (0, 1) for plan in plans)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_drop_remainder_leaves_full_batches_only(world):
    for rank in range(world):
        plan = Plan(CHAINS, 5, True, rank=rank, world=world, drop_remainder=True)
        assert plan.batches == plan.steps == 52 // world // 5
        assert len(stream(plan, 0)) == plan.steps * 5


@pytest.mark.parametrize(("stride", "world"), [(2, 1), (5, 1), (5, 3), (52, 1), (60, 2)])
def test_a_stride_takes_rows_evenly_spaced_over_each_range(stride, world):
    everything = stream(Plan(CHAINS, 4), 0)
    for rank in range(world):
        plan = Plan(CHAINS, 4, rank=rank, world=world, stride=stride)
        first, last = plan.range
        assert stream(plan, 0) == everything[first:last][::stride]
        assert plan.batches == -(-len(range(first, last, stride)) // 4)
        assert plan.steps - plan.batches in (0, 1)


def test_shuffled_with_a_stride_the_same_rows_come():
    ordered, shuffled = (Plan(CHAINS, 4, shuffle, seed=1, stride=1 + shuffle) for shuffle in (False, True))
    assert len(stream(shuffled, 0)) == 26
    assert set(stream(shuffled, 0)) < set(stream(ordered, 0))


def test_without_shuffle_the_order_of_files_is_kept():
    expected = [(c.file, c.part, row) for c in CHAINS for row in range(c.rows)]
    assert stream(Plan(CHAINS, 4), 0) == expected
    assert [row for rank in range(3) for row in stream(Plan(CHAINS, 4, rank=rank, world=3), 7)] == expected


def test_shuffle_depends_on_seed_and_epoch_only():
    def shuffled(seed: int, epoch: int) -> list[tuple[int, int, int]]:
        return stream(Plan(CHAINS, 4, True, buffer=4, seed=seed), epoch)

    assert shuffled(1, 0) == shuffled(1, 0)
    assert shuffled(1, 0) != shuffled(1, 1)
    assert shuffled(1, 0) != shuffled(2, 0)


def test_ranks_permute_their_windows_differently():
    chains = tuple(Chain(0, part, 16, 16 * part) for part in range(2))
    draws = [Plan(chains, 4, True, rank=rank, world=2).permutation(0, 16 * rank, 16) for rank in range(2)]
    assert not np.array_equal(*draws)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 5}, {"seed": 3}, {"shuffle": False}, {"buffer": 9}, {"world": 2}, {"drop_remainder": True}],
)
def test_key_changes_with_whatever_renumbers_batches(change):
    settings = {"batch_size": 4, "shuffle": True, "buffer": 3, "seed": 1}
    assert Plan(CHAINS, **settings).key != Plan(CHAINS, **settings | change).key
    assert Plan(CHAINS, **settings).key != Plan(CHAINS[1:], **settings).key
    assert Plan(CHAINS, **settings).key == Plan(CHAINS, **settings).key


def test_ranks_share_a_key_so_that_rank_zero_can_save_for_all():
    assert Plan(CHAINS, 4, rank=0, world=2).key == Plan(CHAINS, 4, rank=1, world=2).key


def test_the_order_of_chains_depends_on_the_epoch():
    plan = Plan(CHAINS, 4, True, seed=1)
    orders = [tuple(span.chain for span in plan.order(epoch).spans(0, 52)) for epoch in range(3)]
    assert len(set(orders)) == 3
    assert all(sorted(order, key=CHAINS.index) == list(CHAINS) for order in orders)


def test_spans_are_never_empty():
    order = Plan(CHAINS, 4).order(0)
    for start in range(52):
        for stop in range(start + 1, 53):
            spans = list(order.spans(start, stop))
            assert all(span.start < span.stop for span in spans)
            assert sum(span.stop - span.start for span in spans) == stop - start
