"""Draws from a discrete distribution in O(1) each: Vose's alias tables, built without a loop over items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def alias_tables(weights: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """(prob, alias): draw i uniformly, keep it with prob[i], else take alias[i].

    Vose, "A linear algorithm for generating random numbers with a given distribution", 1991. Its two
    stacks are swept here as two cumulative sums (Hübschle-Schneider & Sanders, "Parallel weighted
    random sampling", ESA 2019, section 4): what the light items lack is laid end to end beside what the heavy ones
    have too much of. A light item takes from the heavy one that lies where its lack begins; a heavy one that was
    emptied beyond its own share takes from the next.

    Args:
        weights: [V], finite, >= 0, not all 0.

    Returns:
        [V] each.
    """
    scaled = weights.astype(np.float64)
    scaled *= len(scaled) / scaled.sum()
    prob = np.ones(len(scaled))
    alias = np.arange(len(scaled), dtype=np.int32)
    light, heavy = np.flatnonzero(scaled < 1), np.flatnonzero(scaled >= 1)
    if not len(light):
        return prob.astype(np.float32), alias
    lack, excess = np.cumsum(1 - scaled[light]), np.cumsum(scaled[heavy] - 1)
    starts = np.concatenate(([0.0], lack[:-1]))
    prob[light] = scaled[light]
    # Rounding may leave the last lack a hair beyond the last excess.
    alias[light] = heavy[np.minimum(np.searchsorted(excess, starts, side="right"), len(heavy) - 1)]
    # The light item during which a heavy one runs out, and by how much it overdraws.
    last = np.searchsorted(lack, excess[:-1], side="left")
    inside = last < len(lack)
    overdrawn = np.where(inside, lack[np.minimum(last, len(lack) - 1)] - excess[:-1], 0.0)
    prob[heavy[:-1]] = np.clip(1 - overdrawn, 0, 1)
    alias[heavy[:-1]] = heavy[1:]
    return prob.astype(np.float32), alias


def draw(
    prob: NDArray[np.float32], alias: NDArray[np.int32], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` independent draws, int64 numbers of items."""
    first = rng.integers(len(prob), size=count)
    keep = rng.random(count, dtype=np.float32) < prob[first]
    return np.where(keep, first, alias[first])
