"""The order of the items as leaves of a balanced tree, by category or by their vectors.

The shape of a tree follows from the number of its leaves: those of a node are neighbours, shared out to its children
in equal parts (sizes differ by one at most). So a tree is an order of the leaves.
"""

# V items, n children of a node, D width of a vector, G segments of one size, S items of each

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Rounds of moving centres.
_ROUNDS = 10
# Numbers of a piece of work: 256 MiB of float32.
_NUMBERS = 1 << 26


@dataclass(frozen=True)
class Level:
    """Nodes of a level as ranges of leaves: those from `start` to before `end` lie below a node.

    Attributes:
        start, end: int64 [nodes].
        code: int64 [nodes], place in the complete tree counted level by level: children of c are n c + 1 to n c + n.
    """

    start: np.ndarray
    end: np.ndarray
    code: np.ndarray


def levels(count: int, children: int) -> list[Level]:
    """Levels of a tree of `count` leaves, from the root on; on the last one every node is one leaf.

    A node with one leaf above the last level has one child.
    """
    found = [Level(np.zeros(1, np.int64), np.array([count]), np.zeros(1, np.int64))]
    while (found[-1].end - found[-1].start).max() > 1:
        above = found[-1]
        bounds = _bounds(above.start, above.end, children)
        start, end = bounds[:, :-1].ravel(), bounds[:, 1:].ravel()
        code = (children * above.code[:, None] + 1 + np.arange(children)).ravel()
        full = end > start
        found.append(Level(start[full], end[full], code[full]))
    return found


def _bounds(start: np.ndarray, end: np.ndarray, children: int) -> np.ndarray:
    """Where the children of each range begin, and where the last one ends: int64 [ranges, n + 1].

    Of one leaf the first child is the one that has it.
    """
    size = end - start
    share = np.arange(children + 1) * size[:, None] // children
    share[size == 1, 1:] = 1
    return start[:, None] + share


def by_category(category: np.ndarray, *, seed: int) -> np.ndarray:
    """Categories in random order, their items in random order within: the paper's initial tree (Section 3.3).

    Args:
        category: number of each item's category, integer [V].
        seed: of the order.

    Returns:
        int64 [V], number of the item at each leaf.
    """
    draw = np.random.default_rng(seed)
    known, place = np.unique(category, return_inverse=True)
    return np.lexsort((draw.random(len(category)), draw.permutation(len(known))[place]))


def by_vectors(vectors: np.ndarray, *, children: int) -> np.ndarray:
    """Recursive balanced k-means: each node's items are halved by two centres, as equal parts as can be.

    Given two centres the best balanced halves are the items in the order of |x - c0|^2 - |x - c1|^2, cut at the middle;
    the centres then move to the means of the halves, and so on, so that the sum of squares never rises. The paper lets
    k-means run freely and moves items over afterwards. More than two children are halves of halves.

    Args:
        vectors: float [V, D].
        children: n.

    Returns:
        int64 [V], number of the item at each leaf.
    """
    order = np.arange(len(vectors))
    vectors = np.ascontiguousarray(vectors, np.float32)
    for level in levels(len(vectors), children)[:-1]:
        bounds = _bounds(level.start, level.end, children)
        parts = [(0, children)]
        while parts:
            low, high = parts.pop()
            middle = (low + high) // 2
            _halve(vectors, order, bounds[:, low], bounds[:, middle], bounds[:, high])
            parts += [(a, b) for a, b in ((low, middle), (middle, high)) if b - a > 1]
    return order


def _halve(vectors: np.ndarray, order: np.ndarray, start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> None:
    """Reorder the items of ranges so that those before `middle` are alike, and those behind it."""
    size, first = end - start, middle - start
    # Ranges of one size have their middle at one place, but for the ones of a node with a single item.
    for items, cut in np.unique(np.stack([size, first], 1), axis=0):
        if items < 2 or not 0 < cut < items:
            continue
        ranges = start[(size == items) & (first == cut)]
        step = max(1, _NUMBERS // (int(items) * vectors.shape[1]))
        for at in range(0, len(ranges), step):
            places = ranges[at : at + step, None] + np.arange(items)
            chosen = order[places]
            order[places] = np.take_along_axis(chosen, _split(vectors[chosen], int(cut)), 1)


def _split(x_GSD: np.ndarray, cut: int) -> np.ndarray:
    """Order of the items of each segment, int64 [G, S], whose first `cut` are one cluster."""
    groups = np.arange(len(x_GSD))
    mean_G1D = x_GSD.mean(1, keepdims=True)
    c0_GD = x_GSD[groups, np.square(x_GSD - mean_G1D).sum(2).argmax(1)]
    c1_GD = x_GSD[groups, np.square(x_GSD - c0_GD[:, None]).sum(2).argmax(1)]
    before: np.ndarray | None = None
    order = np.empty(x_GSD.shape[:2], np.int64)
    for _ in range(_ROUNDS):
        # |x - c0|^2 - |x - c1|^2 but for a constant of the segment.
        nearer_GS = np.einsum("gsd,gd->gs", x_GSD, c1_GD - c0_GD)
        order = np.argsort(nearer_GS, axis=1, kind="stable")
        left_GS = np.zeros(order.shape, bool)
        np.put_along_axis(left_GS, order[:, :cut], True, 1)
        if before is not None and np.array_equal(left_GS, before):
            break
        before = left_GS
        weight_GS = left_GS.astype(np.float32)
        c0_GD = np.einsum("gs,gsd->gd", weight_GS, x_GSD) / cut
        c1_GD = np.einsum("gs,gsd->gd", 1 - weight_GS, x_GSD) / (order.shape[1] - cut)
    return order
