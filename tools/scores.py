"""AUC and logloss in numpy, for truths that are no model's (the package's metrics are in rec/metrics)."""

from __future__ import annotations

import numpy as np


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counted half; nan with one class only."""
    labels = np.asarray(labels) > 0
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Mean rank (from 1) of each group of equal scores.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def logloss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean binary cross-entropy in nats; probabilities are kept 1e-12 away from 0 and 1."""
    labels = np.asarray(labels, np.float64)
    probs = np.clip(np.asarray(probs, np.float64), 1e-12, 1 - 1e-12)
    return float(-(labels * np.log(probs) + (1 - labels) * np.log1p(-probs)).mean())


def scores(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """AUC and logloss of probabilities."""
    return {"auc": auc(labels, probs), "logloss": logloss(labels, probs)}
