"""Encoded rows again, in any order and any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rec.features.base import ones


def take_rows(features: Mapping[str, np.ndarray], names: Iterable[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of some features for some rows.

    Args:
        features: as the encoder gives them.
        names: of features.
        rows: int64 [M], numbers of rows.

    Returns:
        `<feature>.values`, `.lengths`, `.inner_lengths` and `.weights` of M rows.
    """
    found: dict[str, np.ndarray] = {}
    for name in names:
        values, lengths = features[f"{name}.values"], features.get(f"{name}.lengths")
        if lengths is None:
            found[f"{name}.values"] = values[rows]
            continue
        single = len(lengths) == len(values) and (lengths == 1).all()
        at = rows if single else spans(lengths, rows)
        found[f"{name}.lengths"] = ones(len(rows)) if single else lengths[rows]
        inner = features.get(f"{name}.inner_lengths")
        if inner is not None:
            found[f"{name}.inner_lengths"] = inner[at]
            at = spans(inner, at)
        found[f"{name}.values"] = values[at]
        weights = features.get(f"{name}.weights")
        if weights is not None:
            found[f"{name}.weights"] = weights[at]
    return found


def spans(lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Places of all values of some rows, in their order: int64."""
    counts = lengths[rows].astype(np.int64)
    begin = (np.cumsum(lengths, dtype=np.int64) - lengths)[rows]
    return np.repeat(begin - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
