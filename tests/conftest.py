"""What holds for all tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


def _logging_restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("rec")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """`rec.main` sets up logging for a process of its own; the next test must find it untouched."""
    yield from _logging_restored()


@pytest.fixture(autouse=True, scope="module")
def logging_stays_as_it_was_for_modules() -> Iterator[None]:
    """The same where a fixture of a whole module runs `rec.main`."""
    yield from _logging_restored()
