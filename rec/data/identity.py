"""Which rows hold the same item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rec.data import targets

# Odd constants of splitmix64.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class ItemIdentity:
    """Keys of items: by a column, or else by everything that the item tower reads.

    Items of equal features have equal vectors, so that the one is always a false negative of the other.

    Attributes:
        column: column with item ids; "" for none.
        features: features of the item tower.
    """

    column: str
    features: tuple[str, ...]

    def keys(self, rows: pa.RecordBatch, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """int64 [B], equal for the same item.

        Args:
            rows: raw columns.
            features: encoded features of the same rows.
        """
        if self.column:
            return targets.keys(rows.column(rows.schema.get_field_index(self.column)))
        return feature_keys(features, self.features)


def feature_keys(features: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """int64 hash of some features of each row; the order of a row's several ids does not matter.

    Args:
        features: as the encoder gives them.
        names: features that are no sequences.
    """
    total: np.ndarray | None = None
    for place, name in enumerate(names):
        values = features[f"{name}.values"]
        if values.ndim == 2:  # dense: its bits, column by column
            bits = np.ascontiguousarray(values + 0.0, np.float32).view(np.uint32).astype(np.uint64)
            part = np.zeros(len(bits), np.uint64)
            for column in range(bits.shape[1]):
                part = _mixed(part + bits[:, column])
        else:
            part = _mixed(values.astype(np.uint64))
            weights = features.get(f"{name}.weights")
            if weights is not None:
                part = _mixed(part + weights.view(np.uint32).astype(np.uint64))
            lengths = features[f"{name}.lengths"]
            if len(lengths) != len(part) or not (lengths == 1).all():
                sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(part, dtype=np.uint64)))
                ends = np.cumsum(lengths, dtype=np.int64)
                part = sums[ends] - sums[ends - lengths]
        part = _mixed(part + np.uint64((place + 1) * int(_GAMMA) % 2**64))
        total = part if total is None else total + part
    assert total is not None, "an item tower reads something"
    return total.view(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Splitmix64's finaliser (Steele, Lea & Flood, 2014): every bit of the input moves every bit out."""
    x = x + _GAMMA
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))
