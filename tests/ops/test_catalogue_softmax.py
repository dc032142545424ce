from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rec.ops.catalogue_softmax import catalogue_cross_entropy, chunked, rank_in_catalogue, reference


def inputs(rows: int = 13, items: int = 17, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    query = torch.randn(rows, 5, generator=g, dtype=dtype, requires_grad=True)
    table = torch.randn(items, 5, generator=g, dtype=dtype, requires_grad=True)
    labels = torch.randint(2, items, (rows,), generator=g)
    return query, table, labels, torch.rand(rows, generator=g, dtype=dtype)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # Four rows a piece, the last one short.
    monkeypatch.setattr(chunked, "PIECE", 4 * 17)


def test_two_items_by_hand() -> None:
    # scores 0 and log 3: probabilities 1/4 and 3/4; 2 * -log(3/4) + 1 * -log(1/4)
    query, table = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [math.log(3)]])
    total = catalogue_cross_entropy(query, table, torch.tensor([1, 0]), torch.tensor([2.0, 1.0]))
    assert total.item() == pytest.approx(2 * math.log(4 / 3) + math.log(4))


def test_it_is_cross_entropy_of_all_scores() -> None:
    query, table, labels, weights = inputs()
    expected = (weights * F.cross_entropy(query @ table.t(), labels, reduction="none", label_smoothing=0.1)).sum()
    total = catalogue_cross_entropy(query, table, labels, weights, label_smoothing=0.1)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("excluded", [None, torch.tensor([0, 1])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sum_and_gradients_are_the_reference_s(excluded: torch.Tensor | None, smoothing: float) -> None:
    query, table, labels, weights = inputs()
    if excluded is not None:
        labels[3], weights[3] = 0, 0.0  # no candidate, but it counts nothing
    found = []
    for function in (catalogue_cross_entropy, reference.catalogue_cross_entropy):
        total = function(query, table, labels, weights, excluded=excluded, label_smoothing=smoothing)
        found.append((total, *torch.autograd.grad(3 * total, (query, table))))
    for got, expected in zip(*found, strict=True):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got, expected)


def test_excluded_items_get_no_gradient_and_change_nothing() -> None:
    query, table, labels, weights = inputs()
    excluded = torch.tensor([0, 1])
    total = catalogue_cross_entropy(query, table, labels, weights, excluded=excluded, label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(total, table)
    assert gradient[:2].abs().max() < 1e-12
    with torch.no_grad():
        table[:2] += 100
    again = catalogue_cross_entropy(query, table, labels, weights, excluded=excluded, label_smoothing=0.1)
    torch.testing.assert_close(again, total)


def test_its_gradients_are_those_of_differences() -> None:
    query, table, labels, weights = inputs(rows=5)
    torch.autograd.gradcheck(lambda q, t: catalogue_cross_entropy(q, t, labels, weights), (query, table))


def test_no_rows_cost_nothing() -> None:
    query, table, labels, weights = inputs(rows=0)
    total = catalogue_cross_entropy(query, table, labels, weights)
    total.backward()
    assert total.item() == 0
    assert table.grad.abs().max() == 0


def test_ranks_by_hand() -> None:
    # scores 3 1 2 2: the best is first; of the two alike neither is better than third; without item 0, second
    query, table = torch.ones(3, 1), torch.tensor([[3.0], [1.0], [2.0], [2.0]])
    labels = torch.tensor([0, 2, 1])
    assert rank_in_catalogue(query, table, labels).tolist() == [1, 3, 4]
    assert rank_in_catalogue(query[1:], table, labels[1:], excluded=torch.tensor([0])).tolist() == [2, 3]


def test_items_seen_before_are_no_candidates_but_the_right_one_is() -> None:
    # Row 0 has seen 0 and 2 (its own), row 2 has seen 0, 2 and 3.
    query, table = torch.ones(3, 1), torch.tensor([[3.0], [1.0], [2.0], [2.0]])
    seen = (torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 2, 0, 2, 3]))
    labels = torch.tensor([2, 2, 1])
    for function in (rank_in_catalogue, reference.rank_in_catalogue):
        assert function(query, table, labels, seen=seen).tolist() == [2, 3, 1]


def test_pairs_seen_before_are_found_in_every_piece() -> None:
    query, table, labels, _ = inputs()
    rows = torch.arange(13).repeat_interleave(3)
    seen = (rows, torch.randint(0, 17, (39,), generator=torch.Generator().manual_seed(1)))
    excluded = torch.tensor([0, 1])
    found = [
        function(query, table, labels, excluded=excluded, seen=seen)
        for function in (rank_in_catalogue, reference.rank_in_catalogue)
    ]
    assert torch.equal(*found)


def test_ranks_are_the_reference_s_and_last_where_all_scores_are_alike() -> None:
    query, table, labels, _ = inputs()
    assert torch.equal(rank_in_catalogue(query, table, labels), reference.rank_in_catalogue(query, table, labels))
    assert rank_in_catalogue(torch.zeros_like(query), table, labels).tolist() == [17] * 13
    assert rank_in_catalogue(query[:0], table, labels[:0]).shape == (0,)
