"""Items of earlier steps: which are kept, what they do to a loss, and that they count as often as they are expected."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from rec.losses.contrast import Pairs
from rec.losses.memory import CrossBatchMemory, matches
from tests.losses.helpers import CONTRASTIVE, SOFTMAX, build

CPU = torch.device("cpu")


@dataclass
class Rows:
    """As much of a batch as a memory looks at."""

    candidates: dict[str, Tensor]


def rows_of(keys: list[int], **more: Tensor) -> Rows:
    """A batch of in-batch negatives whose rows have items of these keys."""
    key, row = torch.tensor(keys, dtype=torch.int64), torch.arange(len(keys))
    masked = torch.nonzero(key[:, None] == key[None, :]).t()
    return Rows({"item_key": key, "masked": masked, "not_negative": torch.stack([row, key]), **more})


def vectors(keys: list[int]) -> Tensor:
    """[1, key] for each, so that a vector tells its item."""
    return torch.tensor([[1.0, float(k)] for k in keys]).reshape(-1, 2)


def memory(size: int, *batches: list[int], **settings: bool) -> CrossBatchMemory:
    made = CrossBatchMemory(size, **{"corrected": False, **settings})
    for keys in batches:
        made.add(vectors(keys), rows_of(keys).candidates)
    return made


def kept(made: CrossBatchMemory) -> list[int]:
    """Keys from the oldest entry to the newest."""
    state = made.state()
    start, filled = state["cursor"].tolist()
    order = [(start - filled + i) % made.size for i in range(filled)]
    assert torch.equal(state["vectors"][order], vectors(state["keys"][order].tolist()))
    return state["keys"][order].tolist()


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([[1, 2]], [1, 2]),
        ([[1, 2], [3, 4]], [1, 2, 3, 4]),
        ([[1, 2], [3, 4], [5, 6]], [2, 3, 4, 5, 6]),  # five places
        ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [5, 6, 7, 8, 9]),
        ([[1, 2, 3, 4, 5]], [1, 2, 3, 4, 5]),
        ([[1, 2, 3, 4, 5, 6, 7]], [3, 4, 5, 6, 7]),
        ([[1, 2], [3, 4, 5, 6, 7, 8, 9]], [5, 6, 7, 8, 9]),
        ([[1, 2, 3, 4, 5, 6, 7], [8], [9, 10]], [6, 7, 8, 9, 10]),
        ([[1], [], [2]], [1, 2]),
    ],
)
def test_the_oldest_make_room(batches: list[list[int]], expected: list[int]):
    assert kept(memory(5, *batches)) == expected


def test_an_empty_memory_is_none_and_has_no_state():
    assert memory(3).of(rows_of([1])) is None
    assert memory(3).state() == {}


def test_entries_are_written_in_place_and_only_what_is_filled_is_used():
    made = memory(4, [1, 2])
    before = made.state()["vectors"].data_ptr()
    made.add(vectors([3, 4, 5]), rows_of([3, 4, 5]).candidates)
    assert made.state()["vectors"].data_ptr() == before
    assert made.of(rows_of([1])).vectors_MD.data_ptr() == before
    assert memory(4, [1, 2]).of(rows_of([9])).vectors_MD.tolist() == vectors([1, 2]).tolist()


def test_what_comes_back_from_a_checkpoint_goes_on_alike():
    whole, broken = memory(5, [1, 2, 3], [4, 5, 6]), memory(5)
    assert broken.load_state({name: value.clone() for name, value in whole.state().items()}, CPU)
    for made in (whole, broken):
        made.add(vectors([7, 8]), rows_of([7, 8]).candidates)
    assert kept(whole) == kept(broken) == [4, 5, 6, 7, 8]
    assert torch.equal(whole.state()["cursor"], broken.state()["cursor"])


@pytest.mark.parametrize("other", [memory(4), memory(5, corrected=True), memory(5, corrected=True, sampled=True)])
def test_the_state_of_another_memory_is_left_and_it_stays_empty(other: CrossBatchMemory):
    assert not other.load_state(memory(5, [1, 2]).state(), CPU)
    assert not other.load_state({}, CPU)
    assert other.filled == 0


def test_matches_are_all_pairs_of_equal_keys():
    row, column = matches(torch.tensor([0, 1, 1, 2]), torch.tensor([7, 5, 7, 9]), torch.tensor([5, 7, 8, 7]))
    assert sorted(zip(row.tolist(), column.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 0), (1, 1), (1, 3)]
    none = torch.zeros(0, dtype=torch.int64)
    assert matches(none, none, torch.tensor([1, 2]))[0].tolist() == []


def pairs(user: Tensor, items: Tensor, rows: Rows, made: CrossBatchMemory | None, *, in_batch: bool = True) -> Pairs:
    return Pairs(
        predictions={"user_embedding": user, "item_embedding": items},
        batch=rows,
        weights=None,
        in_batch=in_batch,
        most_hard=0,
        temperature=1.0,
        normalised=False,
        remembered=None if made is None else made.of(rows),
    )


def test_in_batch_softmax_with_a_memory_by_hand():
    # One row of item 3, user (0, log 2): its own logit log 8, the memory's items 1, 3 and 2 log 2, log 8, log 4.
    # Item 3 is the row's own, so it is none: -log(8 / (8 + 2 + 4)).
    user, made = torch.tensor([[0.0, math.log(2)]]), memory(4, [1, 3, 2])
    got = pairs(user, vectors([3]), rows_of([3]), made)
    assert build(SOFTMAX).sums(got).mean().item() == pytest.approx(math.log(14 / 8), rel=1e-6)
    assert got.contrast.num_negatives_B.item() == 2
    # bpr: log(1 + 2/8) and log(1 + 4/8), in the mean
    bpr = (math.log(1.25) + math.log(1.5)) / 2
    assert build("bpr_loss {}").sums(got).mean().item() == pytest.approx(bpr, rel=1e-6)
    assert got.contrast.ranks().tolist() == [1]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("text", CONTRASTIVE)
def test_entries_are_negatives_as_sampled_items_are_but_get_no_gradient(text: str):
    user, items = drawn(0, 6, 3).requires_grad_(), drawn(1, 6, 3).requires_grad_()
    past = drawn(2, 9, 3).requires_grad_()
    rows = rows_of([1, 2, 3, 4, 5, 1])
    made = CrossBatchMemory(9, corrected=False)
    made.add(past, rows_of([7, 1, 8, 9, 2, 10, 11, 12, 13]).candidates)
    got = build(text).sums(pairs(user, items, rows, made)).mean()

    # All as items that a sampler drew: the rows' own items apart from what they are as negatives of other rows, then
    # the entries. Of items 1 and 2 pairs with rows 0, 1 and 5 are none.
    same = torch.tensor([[0, 5, 1], [7, 7, 10]])
    masked = torch.cat([rows.candidates["masked"], same], dim=1)
    copy = [x.detach().clone().requires_grad_() for x in (user, items, items, past)]
    sampled = pairs(copy[0], torch.cat(copy[1:]), Rows({"masked": masked}), None, in_batch=False)
    want = build(text).sums(sampled).mean()
    torch.testing.assert_close(got, want)
    got.backward()
    want.backward()
    torch.testing.assert_close(user.grad, copy[0].grad)
    # Five of fourteen negatives have a gradient, which stands for all.
    torch.testing.assert_close(items.grad, copy[1].grad + 14 / 5 * copy[2].grad)
    assert past.grad is None
    assert copy[3].grad.abs().max() > 0


def test_the_gradient_of_an_item_is_that_of_how_often_it_is_expected_by_hand():
    # In the batch 2 f + n q times, with three entries 5 f + n q: (5 * .2 + .1) / (2 * .2 + .1) = 2.2, else 5 / 2.
    made = CrossBatchMemory(3)
    made.add(vectors([11, 12, 13]), rows_of([11, 12, 13], log_share=torch.zeros(3)).candidates)
    share, n_q = torch.tensor([0.2, 0.1, 0.1]), torch.tensor([0.1, 0.0, 0.0])
    rows = rows_of([1, 2, 3], log_count=torch.log(2 * share + n_q), log_share=share.log())
    items = vectors([1, 2, 3]).requires_grad_()
    shared = pairs(torch.zeros(3, 2), items, rows, made).contrast.shared_CD
    assert torch.equal(shared, items)
    shared.sum().backward()
    torch.testing.assert_close(items.grad, torch.tensor([[2.2], [2.5], [2.5]]).expand(3, 2))


def test_later_changes_of_a_vector_are_not_seen():
    items, made = vectors([1, 2]), CrossBatchMemory(4, corrected=False)
    made.add(items, rows_of([1, 2]).candidates)
    items.mul_(100)
    assert made.of(rows_of([3])).vectors_MD.tolist() == vectors([1, 2]).tolist()


def test_half_precision_vectors_are_kept_in_float32():
    made = CrossBatchMemory(4, corrected=False)
    made.add(vectors([1, 2]).bfloat16(), rows_of([1, 2]).candidates)
    assert made.of(rows_of([3])).vectors_MD.dtype == torch.float32


def test_expected_counts_by_hand():
    # 3 rows, shares .5 and .25, .25; two drawn items of n q .2 and .4; a memory of 4 entries.
    # With 2 + 4 draws by share: 6 f + n q for each, wherever it stands.
    share, n_q = torch.tensor([0.5, 0.25, 0.25, 0.1, 0.2]), torch.tensor([0.1, 0.3, 0.5, 0.2, 0.4])
    count = torch.log(2 * share + n_q)
    made = CrossBatchMemory(8, sampled=True)
    past = {"log_share": torch.log(torch.tensor([0.5, 0.1, 0.1, 0.3])), "log_drawn": torch.tensor([0.0, -1, -2, -3])}
    made.add(torch.zeros(4, 2), rows_of([11, 12, 13, 14], **past).candidates)
    rows = rows_of([1, 2, 3], log_count=count, log_share=share.log())
    got = pairs(torch.zeros(3, 2), torch.zeros(5, 2), rows, made).contrast.log_count.exp()
    past_count = 6 * torch.tensor([0.5, 0.1, 0.1, 0.3]) + past["log_drawn"].exp()
    torch.testing.assert_close(got, torch.cat([6 * share + n_q, past_count]))
    # Without in-batch negatives the rows are no draws: 4 f + n q.
    rows = replace(rows, candidates=rows.candidates | {"log_count": n_q[3:].log()})
    got = pairs(torch.zeros(3, 2), torch.zeros(5, 2), rows, made, in_batch=False).contrast.log_count.exp()
    expected = torch.cat([4 * share[3:] + n_q[3:], 4 * torch.tensor([0.5, 0.1, 0.1, 0.3]) + past["log_drawn"].exp()])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(("in_batch", "sampled"), [(True, True), (True, False), (False, True)])
def test_corrected_negatives_estimate_the_sum_over_the_catalogue(in_batch: bool, sampled: bool):
    draw = torch.Generator().manual_seed(0)
    items, rows, entries, number = 30, 40, 90, 25 if sampled else 0
    catalogue = 0.5 * torch.randn(items, 3, generator=draw)
    f, q = (torch.rand(items, generator=draw) ** 3 + 0.02 for _ in range(2))
    f, q = f / f.sum(), q / q.sum()
    ratios = []
    for _ in range(60):
        own, past = (torch.multinomial(f, n, replacement=True, generator=draw) for n in (rows, entries))
        shared = torch.cat([own, torch.multinomial(q, number, replacement=True, generator=draw)]) if sampled else own
        n_q = number * q if sampled else torch.zeros(items)
        made = CrossBatchMemory(entries, sampled=sampled)
        made.add(catalogue[past], {"item_key": past, "log_share": f[past].log(), "log_drawn": n_q[past].log()})
        # Nothing is masked but the row itself: the sum is then that over the whole catalogue.
        row, none = torch.arange(rows), torch.zeros(2, 0, dtype=torch.int64)
        found = {"masked": torch.stack([row, row]) if in_batch else none, "not_negative": none}
        count = (rows - 1) * f * in_batch + n_q
        found["log_count"] = count[shared if in_batch else shared[rows:]].log()
        found["log_share"] = f[shared].log()
        user = torch.randn(rows, 3, generator=draw)
        contrast = pairs(user, catalogue[shared], Rows(found), made, in_batch=in_batch).contrast
        estimate = contrast.corrected[:, 1:].exp().sum(dim=1)
        ratios.append(estimate / (user @ catalogue.t()).exp().sum(dim=1))
    # 60 batches whose estimates spread by some 10 %
    assert torch.stack(ratios).mean().item() == pytest.approx(1, abs=0.04)
