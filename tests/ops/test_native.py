"""The compiled kernels as a library: what happens without it, and how work is cut."""

from __future__ import annotations

import logging

import pytest
import torch

from rec.ops import native
from rec.ops.selective_scan import reference, selective_scan
from tests.ops.test_selective_scan import inputs


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library, as after an install without a compiler."""
    monkeypatch.setattr(native, "EXTENSION_SUFFIXES", [".none"])
    monkeypatch.setattr(native, "_library", native._library.__wrapped__)


@pytest.mark.usefixtures("missing")
def test_without_the_library_the_log_says_what_to_do_and_the_reference_is_taken(caplog) -> None:
    tensors, size = inputs([3, 2], 4, 2), torch.tensor([3, 2])
    with caplog.at_level(logging.WARNING, logger="rec.ops.native"):
        y = selective_scan(*tensors, size)
    assert torch.equal(y, reference.selective_scan(*tensors, size))
    assert "compiled CPU kernels are missing" in caplog.text
    assert "with gcc at hand, install again" in caplog.text


@pytest.mark.skipif(not native.available(), reason="no compiled kernels: python setup.py build_ext --inplace")
def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert native._library.__wrapped__() is None
    assert "is of another version" in caplog.text


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 5], [5] * 40, [1000, 0, 1, 1]])
@pytest.mark.parametrize("width", [1, 2**15, 2**17])
def test_pieces_are_all_rows_once_in_order(lengths: list[int], width: int) -> None:
    offsets = native.offsets_of(torch.tensor(lengths, dtype=torch.int64), torch.empty(sum(lengths), 1))
    pieces = native.pieces_of(offsets, width)
    assert [row for first, last in pieces for row in range(first, last)] == list(range(len(lengths)))
    assert len(pieces) <= native.PIECES
