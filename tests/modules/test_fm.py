from __future__ import annotations

from itertools import combinations

import torch

from rec.modules.fm import factorization_machine


def test_three_fields_by_hand() -> None:
    # Pairs 1*2 + 1*3 + 2*3 = 11 and -1*0 + -1*4 + 0*4 = -4.
    x = torch.tensor([[[1.0, -1.0], [2.0, 0.0], [3.0, 4.0]]])
    assert factorization_machine(x).tolist() == [[11.0, -4.0]]


def test_equals_the_sum_over_pairs() -> None:
    x = torch.randn(5, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = sum(x[:, i] * x[:, j] for i, j in combinations(range(7), 2))
    torch.testing.assert_close(factorization_machine(x), pairs)


def test_one_field_has_no_pairs() -> None:
    # (1.5 + 0) squared minus 1.5 squared, exactly.
    assert factorization_machine(torch.full((2, 1, 3), 1.5)).abs().max() == 0
