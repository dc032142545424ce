"""The scan's benchmark: its ways agree before they are timed."""

from __future__ import annotations

import pytest

from benchmarks.bench_scan import LENGTHS, Shape, check, page, ways


@pytest.mark.parametrize("name", ways())
def test_each_way_is_right_before_it_is_timed(name: str) -> None:
    check(ways()[name], Shape(4, 9, 16, 3, ragged=True))


def test_a_wrong_way_is_not_timed() -> None:
    right = ways()["selective_scan"]
    with pytest.raises(AssertionError, match="wrong for B 2 L 5 E 4 S 2"):
        check(lambda *inputs: right(*inputs) * 1.001, Shape(2, 5, 4, 2))


def test_the_page_says_whether_the_cost_is_linear() -> None:
    text = page([["B 1", "ours", "1.0", "0.1", "2.0x"]], {"ours": [float(n) for n in LENGTHS]}, repeats=3)
    assert "| ours | 50.0 | 100.0 | 200.0 | 400.0 | 700.0 | 1000.0 | 1.00 |" in text
    assert "median of 3" in text
