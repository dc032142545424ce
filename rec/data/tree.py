"""A tree over the items as its files say it, checked, compact, in memory that all workers map."""

# V nodes, H levels below the root

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data.alias import alias_tables
from rec.data.item_file import Rows
from rec.data.items import ItemTable
from rec.data.shared import SharedArrays
from rec.data.tree_files import LEVEL, NodeFile, edges
from rec.features.base import Feature

log = logging.getLogger(__name__)


class Tree:
    """Nodes with encoded features, and who is whose parent. Every item is a leaf on the last level.

    Memory: that of an `ItemTable` of the nodes, and 22 bytes a node more (16 yet where weights differ).

    Args:
        nodes: what is read.
        children: path of the edges from each node to its children.
        features: those of nodes, and stubs that they read.
        id_type: type of the item ids in the data.
        field_delimiter: between columns of the edges.

    Attributes:
        table: features of the nodes, whose numbers are those of this table.
        depth: H; leaves are on level H.

    Raises:
        DataError: what is no tree, with file and row.
    """

    def __init__(
        self,
        nodes: NodeFile,
        children: str,
        features: Sequence[Feature],
        *,
        id_type: pa.DataType,
        field_delimiter: str = "",
    ) -> None:
        self.table = ItemTable(nodes, features, id_type=id_type)
        number = self.table.find(np.concatenate(nodes.keys))
        level = np.empty(len(number), np.int16)
        level[number] = np.concatenate(nodes.levels)
        self.depth = int(level.max())
        sizes = np.bincount(level, minlength=self.depth + 1)
        if sizes[0] != 1 or not self.depth:
            raise DataError(
                f"has {sizes[0]} nodes of level 0 and {self.depth} levels below, expected a tree", file=nodes.path
            )
        parent = self._parents(children, id_type, level, field_delimiter)
        order = np.argsort(level, kind="stable").astype(np.int32)
        self._check(nodes.path, level, parent, children)
        # Children of a node in the order of their numbers.
        by_parent = np.argsort(parent, kind="stable").astype(np.int32)[1:]  # all but the root, whose parent is -1
        counts = np.bincount(parent[by_parent], minlength=len(level))
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order))
        arrays = {
            "parent": parent,
            "order": order,
            "place": place,
            "starts": np.concatenate([[0], np.cumsum(sizes)]),
            "child": by_parent,
            "child_starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            "level": level,
        }
        weights = np.exp(self.table.log_q.astype(np.float64))[order]
        if weights.min() != weights.max():
            prob, alias = zip(*(_alias(part) for part in np.split(weights, np.cumsum(sizes)[:-1])), strict=True)
            arrays |= {"weight": weights, "prob": np.concatenate(prob), "alias": np.concatenate(alias)}
        self.arrays = SharedArrays(arrays)
        log.info("a tree of %d items and %d levels below its root", sizes[-1], self.depth)

    def __len__(self) -> int:
        return len(self.table)

    def descriptors(self) -> list[int]:
        """Files that a worker process must inherit."""
        return [self.arrays.fd, self.table.arrays.fd]

    def size(self, level: int) -> int:
        """Number of nodes on a level."""
        starts = self.arrays["starts"]
        return int(starts[level + 1] - starts[level])

    def drawable(self, level: int) -> int:
        """Number of nodes on a level whose weight is above 0."""
        starts = self.arrays["starts"]
        if "weight" not in self.arrays:
            return self.size(level)
        return int((self.arrays["weight"][starts[level] : starts[level + 1]] > 0).sum())

    def on(self, level: int) -> np.ndarray:
        """Numbers of the nodes of a level, int32."""
        starts = self.arrays["starts"]
        return self.arrays["order"][starts[level] : starts[level + 1]]

    @property
    def leaves(self) -> np.ndarray:
        """Numbers of the items, int32."""
        return self.on(self.depth)

    def paths(self, leaves: np.ndarray) -> np.ndarray:
        """Leaves with all their ancestors: int64 [B, H + 1], by level from the root."""
        found = np.empty((len(leaves), self.depth + 1), np.int64)
        found[:, self.depth] = leaves
        for level in range(self.depth, 0, -1):
            found[:, level - 1] = self.arrays["parent"][found[:, level]]
        return found

    def children(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Children of nodes, one after the other, and how many each has: int64 [sum], [n]."""
        starts = self.arrays["child_starts"]
        begin = starts[nodes].astype(np.int64)
        counts = starts[nodes + 1] - begin
        at = np.repeat(begin - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
        return self.arrays["child"][at].astype(np.int64), counts

    def verify(self, path: str, id_type: pa.DataType, *, field_delimiter: str = "") -> None:
        """Hold edges from leaves to their ancestors against this tree.

        Raises:
            DataError: an edge of another tree, with file and row; leaves without edges to all ancestors.
        """
        parent, level = self.arrays["parent"], self.arrays["level"]
        known = np.zeros(len(self), np.int64)
        for source, target, place in edges(path, id_type, field_delimiter=field_delimiter):
            leaf, ancestor = self.table.find(source), self.table.find(target)
            _refuse(leaf < 0, place, 0, "is no node of the tree")
            _refuse(ancestor < 0, place, 1, "is no node of the tree")
            _refuse(level[leaf] != self.depth, place, 0, f"is no leaf: leaves are on level {self.depth}")
            reached = leaf.copy()
            for _ in range(self.depth):
                above = (level[reached] > level[ancestor]) & (parent[reached] >= 0)
                reached = np.where(above, parent[reached], reached)
            _refuse(reached != ancestor, place, 1, "is no ancestor of the leaf by predict_edge_input_path")
            known += np.bincount(leaf, minlength=len(self))
        lacking = int((known[self.leaves] != self.depth - 1).sum())
        if lacking:
            raise DataError(f"{lacking} leaves have no edge to each of their {self.depth - 1} ancestors", file=path)

    def _parents(self, path: str, id_type: pa.DataType, level: np.ndarray, delimiter: str) -> np.ndarray:
        parent = np.full(len(level), -1, np.int32)
        for source, target, place in edges(path, id_type, field_delimiter=delimiter):
            above, below = self.table.find(source), self.table.find(target)
            _refuse(below < 0, place, 1, "is not among the nodes")
            entry = (above < 0) & (level[below] == 0)  # graph-learn's way to the root
            _refuse((above < 0) & ~entry, place, 0, "is not among the nodes")
            above, below, row = above[~entry], below[~entry], np.flatnonzero(~entry)
            _refuse(level[above] + 1 != level[below], place, 1, "is not one level below its parent", rows=row)
            first = np.unique(below, return_index=True)[1]
            twice = np.ones(len(below), bool)
            twice[first] = parent[below[first]] >= 0
            _refuse(twice, place, 1, "has a parent already", rows=row)
            parent[below] = above
        return parent

    def _check(self, path: str, level: np.ndarray, parent: np.ndarray, children: str) -> None:
        orphans = (parent < 0) & (level > 0)
        if orphans.any():
            raise DataError(f"{int(orphans.sum())} of the nodes in {path} have no parent", file=children)
        barren = np.bincount(parent[level > 0], minlength=len(level)) == 0
        wrong = barren & (level < self.depth)
        if wrong.any():
            raise DataError(
                f"{int(wrong.sum())} nodes without children are above level {self.depth}; every item is a leaf on the "
                "last level",
                file=children,
                column=LEVEL,
            )


def _refuse(wrong: np.ndarray, place: Rows, column: int, text: str, *, rows: np.ndarray | None = None) -> None:
    if wrong.any():
        row = int(wrong.argmax() if rows is None else rows[wrong.argmax()])
        name = place.batch.schema.names[column]
        raise place.error(row, f"{place.batch.column(column)[row].as_py()!r} {text}", name)


def _alias(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return alias_tables(weights if weights.sum() > 0 else np.ones(len(weights)))
