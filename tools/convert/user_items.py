"""Files that list each user's items, one line a user ("user item item ...") or one line a pair ("user item")."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rec.config.errors import DataError


@dataclass(frozen=True)
class UserItems:
    """The items of each user, one user after the other."""

    user: np.ndarray  # int64 [users]
    offsets: np.ndarray  # int64 [users + 1]
    items: np.ndarray  # int64 [all items], in the order of the file

    @property
    def lengths(self) -> np.ndarray:
        """Items of each user, [users]."""
        return np.diff(self.offsets)

    @property
    def row(self) -> np.ndarray:
        """Place of the user of each item, [all items]."""
        return np.repeat(np.arange(len(self.user)), self.lengths)


def read_user_items(path: str | Path) -> UserItems:
    """Read a text file, plain or .gz; users keep the order in which they first come.

    Raises:
        DataError: the file is missing or empty, or a value is no number from 0 up.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            rows = [line.split() for line in lines]
    except FileNotFoundError:
        raise DataError("no such file", file=str(path)) from None
    lengths = np.array([len(row) for row in rows])
    flat = [word for row in rows for word in row]
    if not flat:
        raise DataError("is empty", file=str(path))
    numbers = _numbers(flat, lengths, path)
    first = np.cumsum(lengths) - lengths
    full = lengths > 0
    user = np.repeat(numbers[first[full]], lengths[full] - 1)
    items = np.delete(numbers, first[full])
    if not len(items):
        raise DataError("has users without items; expected lines of user item item ...", file=str(path))
    return grouped(user, items)


def _numbers(words: Sequence[str], lengths: np.ndarray, path: Path) -> np.ndarray:
    wrong = next((place for place, word in enumerate(words) if not (word.isascii() and word.isdigit())), None)
    if wrong is not None:
        row = int(np.searchsorted(np.cumsum(lengths), wrong, side="right"))
        raise DataError(f"{words[wrong]!r} is no number from 0 up", file=str(path), row=row)
    return np.array(words, np.int64)


def grouped(user: np.ndarray, items: np.ndarray) -> UserItems:
    """The items of each user from pairs in any order of users; items of a user stay in order."""
    known, first, place = np.unique(user, return_index=True, return_inverse=True)
    rank = np.empty(len(known), np.int64)
    by_first = np.argsort(first)
    rank[by_first] = np.arange(len(known))
    place = rank[place]
    counts = np.bincount(place, minlength=len(known))
    return UserItems(known[by_first], np.concatenate([[0], np.cumsum(counts)]), items[np.argsort(place, kind="stable")])
