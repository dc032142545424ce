"""Behaviour histories: what a user did strictly before the moment of each row, joined without a loop per row.

Order: the most recent step is the last. A behaviour of the row's own timestamp is not history: equal stamps do not
tell which came first, and the row itself may be among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Windows:
    """For each row the range `first:end` of behaviours, sorted by user and time, that are its history."""

    first: np.ndarray  # int64 [rows]
    end: np.ndarray  # int64 [rows]

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each history, [rows]."""
        return self.end - self.first

    def take(self, rows: np.ndarray) -> Windows:
        """Those of some rows, so that the lists of all need not be in memory at once."""
        return Windows(self.first[rows], self.end[rows])

    def last(self, length: int) -> Windows:
        """The last `length` steps of each."""
        return Windows(np.maximum(self.first, self.end - length), self.end)

    def offsets(self) -> np.ndarray:
        """Where each history begins in the flat list of all steps, and where the last ends: int32 [rows + 1]."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)

    def places(self) -> np.ndarray:
        """Place among the sorted behaviours of every step of every row, [sum of lengths]."""
        offsets = self.offsets()
        return np.arange(offsets[-1]) + np.repeat(self.first - offsets[:-1], self.lengths)


def sort_behaviours(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Order of behaviours by user, then time; equal ones stay as they come.

    Returns:
        int64 [behaviours]
    """
    return np.lexsort((time, user))


def windows_before(
    user: np.ndarray, time: np.ndarray, *, row_user: np.ndarray, row_time: np.ndarray, length: int
) -> Windows:
    """The last `length` behaviours of the row's user with a time strictly before the row's.

    Two binary searches for all rows, O((behaviours + rows) log behaviours).

    Args:
        user: of each behaviour, ascending, from 0 up.
        time: of each behaviour, whole numbers, ascending within a user.
        row_user: user of each row.
        row_time: moment of each row.
        length: longest history.
    """
    if not len(user):
        nothing = np.zeros(len(row_user), np.int64)
        return Windows(nothing, nothing)
    low = min(int(time.min()), int(row_time.min(initial=time[0])))
    span = max(int(time.max()), int(row_time.max(initial=time[0]))) - low + 1
    if (max(int(user[-1]), int(row_user.max(initial=0))) + 1) * span >= 2**63:
        raise ValueError("user numbers times the range of times exceed 63 bits; number the users from 0")
    keys = user.astype(np.int64) * span + (time.astype(np.int64) - low)
    row_start = row_user.astype(np.int64) * span
    first = np.searchsorted(keys, row_start)
    end = np.searchsorted(keys, row_start + (row_time.astype(np.int64) - low))
    return Windows(first, end).last(length)


def lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    """A list column of flat values."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def length_summary(lengths: np.ndarray) -> dict[str, float]:
    """How long histories are: mean, quartiles, longest, and the share of empty ones."""
    if not len(lengths):
        return {}
    low, half, high = np.percentile(lengths, (25, 50, 75))
    return {
        "mean": round(float(lengths.mean()), 2),
        "p25": float(low),
        "median": float(half),
        "p75": float(high),
        "max": int(lengths.max()),
        "empty": round(float((lengths == 0).mean()), 4),
    }
