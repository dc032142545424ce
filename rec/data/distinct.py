"""Draws without repetition, for many rows at once."""

# B rows, n things, k drawn of them

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Numbers that are held at once where a key is drawn for every thing.
_KEYS = 1 << 22
# Rounds of drawing again what came twice, before a key is drawn for every thing.
_ROUNDS = 32


def draw_distinct(
    size: int,
    count: int,
    exclude: np.ndarray,
    rng: np.random.Generator,
    *,
    draw: Callable[[int], np.ndarray] | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """For each row `count` different numbers below `size`, none of them the row's excluded one.

    As if drawn one after the other and what comes again is left out: so by weight, the first of a row is drawn in
    proportion to the weights, each further one to those of the rest.

    Args:
        size: n.
        count: k; at most as many as have a weight and are not excluded.
        exclude: int64 [B].
        rng: source of randomness.
        draw: independent draws by weight, as many as it is asked for; None draws uniformly.
        weights: [n] of `draw`; None for uniform draws.

    Returns:
        int64 [B, k]
    """
    rows = len(exclude)
    if not rows or not count:
        return np.zeros((rows, count), np.int64)
    if 4 * count > size:
        return _by_keys(size, count, exclude, rng, weights)
    one = draw if draw is not None else lambda number: rng.integers(size, size=number)
    found = one(rows * count).reshape(rows, count)
    pending = np.arange(rows)
    for _ in range(_ROUNDS):
        again = _repeated(found[pending], exclude[pending])
        bad = again.any(1)
        pending, again = pending[bad], again[bad]
        if not len(pending):
            return found
        part = found[pending]
        part[again] = one(int(again.sum()))
        found[pending] = part
    found[pending] = _by_keys(size, count, exclude[pending], rng, weights)
    return found


def _repeated(found: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """What came before in its row, or is excluded there."""
    order = np.argsort(found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, 1)
    same = np.zeros(found.shape, bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    again = np.zeros(found.shape, bool)
    np.put_along_axis(again, order, same, 1)
    return again | (found == exclude[:, None])


def _by_keys(
    size: int, count: int, exclude: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None
) -> np.ndarray:
    """The first `count` of exponential clocks with the weights as rates (Efraimidis & Spirakis 2006)."""
    found = np.empty((len(exclude), count), np.int64)
    step = max(1, _KEYS // size)
    for first in range(0, len(exclude), step):
        part = exclude[first : first + step]
        keys = rng.standard_exponential((len(part), size), dtype=np.float32)
        if weights is not None:
            with np.errstate(divide="ignore"):
                keys /= weights.astype(np.float32)
        keys[np.arange(len(part)), part] = np.inf
        chosen = np.argpartition(keys, count - 1, axis=1)[:, :count]
        # Their order says nothing; sorted, it does not depend on how numpy partitions.
        found[first : first + step] = np.sort(chosen, axis=1)
    return found
