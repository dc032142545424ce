"""Area under the ROC curve from sorted scores, whole or per group, without a loop over rows or groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def auc(scores: Floats, labels: Floats, weights: Floats | None = None) -> float:
    """Probability that a positive row scores above a negative one, ties counted half.

    Args:
        scores: [N].
        labels: [N], 0 or 1.
        weights: [N], or None for 1 each.

    Returns:
        nan without rows of both labels, or where a score is nan.
    """
    values, _ = _auc_per_group(np.zeros(len(scores), np.int8), scores, labels, weights)
    return float(values[0]) if len(values) else float("nan")


def grouped_auc(
    keys: NDArray[np.int64], scores: Floats, labels: Floats, weights: Floats | None = None, *, by_rows: bool = False
) -> float:
    """Mean over the groups that have rows of both labels of the AUC within the group.

    Args:
        keys: [N], the group of each row.
        scores: [N].
        labels: [N], 0 or 1.
        weights: [N], or None for 1 each.
        by_rows: weigh a group by its (weighted) rows, as the GAUC of DIN (Zhou et al., KDD 2018,
            section 6.2), instead of equally.
    """
    values, rows = _auc_per_group(keys, scores, labels, weights)
    known = rows > 0
    if not known.any() or np.isnan(values[known]).all():
        return float("nan")
    defined = ~np.isnan(values)
    return float(np.average(values[defined], weights=rows[defined] if by_rows else None))


def _auc_per_group(
    keys: NDArray[np.integer], scores: Floats, labels: Floats, weights: Floats | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC (nan where undefined) and rows of each group, groups in ascending order."""
    if len(scores) == 0:
        return np.empty(0), np.empty(0)
    # Two stable sorts (score, then key) are a lexsort; one is enough for a single group.
    order = np.argsort(scores, kind="stable")
    if keys[0] != keys[-1] or (keys != keys[0]).any():
        order = order[np.argsort(keys[order], kind="stable")]
    keys, scores = keys[order], scores[order]
    positive = (labels[order] > 0.5).astype(np.float64)
    weight = np.ones(len(scores)) if weights is None else weights[order].astype(np.float64)
    # float64 counts are exact integers up to 2^53.
    positive_below = _cumulative(positive * weight)
    negative_below = _cumulative((1 - positive) * weight)

    new_key = keys[1:] != keys[:-1]
    tie_starts = np.flatnonzero(np.r_[True, new_key | (scores[1:] != scores[:-1])])
    key_starts = np.flatnonzero(np.r_[True, new_key])
    tie_ends, key_ends = np.r_[tie_starts[1:], len(keys)], np.r_[key_starts[1:], len(keys)]
    group_of_tie = np.searchsorted(key_starts, tie_starts, side="right") - 1

    p = positive_below[tie_ends] - positive_below[tie_starts]
    n = negative_below[tie_ends] - negative_below[tie_starts]
    below = negative_below[tie_starts] - negative_below[key_starts[group_of_tie]]
    pairs = np.add.reduceat(p * (below + n / 2), np.searchsorted(tie_starts, key_starts))
    positives = positive_below[key_ends] - positive_below[key_starts]
    negatives = negative_below[key_ends] - negative_below[key_starts]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where((positives > 0) & (negatives > 0), pairs / (positives * negatives), np.nan)
    # nan sorts last and would count as the best score.
    spoiled = np.isnan(scores[key_ends - 1])
    return np.where(spoiled, np.nan, values), positives + negatives


def _cumulative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative sum with a leading 0, [N + 1]."""
    out = np.zeros(len(values) + 1)
    np.cumsum(values, out=out[1:])
    return out
