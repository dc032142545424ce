"""A tree as the files that `tdm_sampler` reads: nodes, edges to all ancestors, and edges to children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rec.config.errors import DataError
from rec.export.layout import replacing
from tools.tree.order import Level, levels

NODES, EDGES, CHILDREN = "node_table.txt", "edge_table.txt", "predict_edge_table.txt"


@dataclass(frozen=True)
class Leaves:
    """Items in any order.

    Attributes:
        ids: of the items, whole numbers from 0 up or text.
        modes: columns of which an inner node has the most frequent value below it.
        means: columns of which it has the mean, rounded for whole numbers.
    """

    ids: pa.Array
    modes: Mapping[str, pa.Array]
    means: Mapping[str, pa.Array]

    def take(self, order: np.ndarray) -> Leaves:
        """The items in an order."""
        at = pa.array(order)
        return Leaves(
            self.ids.take(at),
            {name: column.take(at) for name, column in self.modes.items()},
            {name: column.take(at) for name, column in self.means.items()},
        )


def write(
    leaves: Leaves, order: np.ndarray, folder: str | Path, *, children: int = 2, delimiter: str = ","
) -> dict[str, Any]:
    """Write the files of a tree; returns what is known of it.

    Inner nodes get ids behind the greatest item id (numbers), or "nonleaf#<place>" (text), ascending from the root on.

    Args:
        leaves: the items.
        order: number of the item at each leaf.
        folder: of the files.
        children: of a node, at most.
        delimiter: between attributes.

    Raises:
        DataError: fewer than two items, an item twice, an attribute with the delimiter in it.
        FileExistsError: the folder holds something else.
    """
    leaves = leaves.take(order)
    if len(leaves.ids) < 2:
        raise DataError(f"{len(leaves.ids)} items make no tree")
    twice = len(leaves.ids) - len(pc.unique(leaves.ids))
    if twice or leaves.ids.null_count:
        raise DataError(f"{twice} items stand twice in the item file, {leaves.ids.null_count} have no id")
    tree = levels(len(leaves.ids), children)
    ids = _ids(leaves.ids, tree)
    home = Path(folder)
    if home.exists() and any(home.iterdir()) and not (home / NODES).exists():
        raise FileExistsError(f"{home} holds files that are no tree; choose another --output")
    with replacing(home) as fresh:
        _write_nodes(fresh / NODES, leaves, tree, ids, delimiter)
        last = ids[-1]
        ancestors = [each.take(pa.array(_owner(level))) for level, each in zip(tree[1:-1], ids[1:-1], strict=True)]
        _write_edges(fresh / EDGES, [last[:0], *[last] * len(ancestors)], [last[:0], *ancestors[::-1]])
        ends = [
            (above.take(pa.array(_parent(level, below))), each)
            for level, below, above, each in zip(tree[:-1], tree[1:], ids[:-1], ids[1:], strict=True)
        ]
        way_in = pa.array([_above(ids[0])], ids[0].type)
        _write_edges(fresh / CHILDREN, [way_in, *(a for a, _ in ends)], [ids[0], *(b for _, b in ends)])
    about = {"items": len(last), "levels": [len(level.start) for level in tree], "nodes": sum(map(len, ids))}
    if pa.types.is_integer(last.type):
        about["num_buckets"] = max(pc.max(each).as_py() for each in ids) + 1
    return about


def _owner(level: Level) -> np.ndarray:
    """Number within the level of the node above each leaf."""
    return np.repeat(np.arange(len(level.start)), level.end - level.start)


def _parent(above: Level, below: Level) -> np.ndarray:
    return np.searchsorted(above.end, below.start, side="right")


def _ids(items: pa.Array, tree: Sequence[Level]) -> list[pa.Array]:
    """Ids of the nodes of each level."""
    if pa.types.is_integer(items.type):
        items = items.cast(pa.int64())
        if pc.min(items).as_py() < 0:
            raise DataError(f"item id {pc.min(items).as_py()} is below 0, which stands above the root")
        behind = pc.max(items).as_py() + 1
        return [*(pa.array(behind + level.code) for level in tree[:-1]), items]
    digits = len(str(int(tree[-1].code.max())))
    return [*(pa.array([f"nonleaf#{code:0{digits}d}" for code in level.code.tolist()]) for level in tree[:-1]), items]


def _above(root: pa.Array) -> int | str:
    """What leads to the root, for readers that begin there."""
    return -1 if pa.types.is_integer(root.type) else "-1"


def _write_nodes(path: Path, leaves: Leaves, tree: Sequence[Level], ids: Sequence[pa.Array], delimiter: str) -> None:
    columns: list[list[pa.Array]] = []
    for level in tree:
        modes = [_modes(column, level) for column in leaves.modes.values()]
        columns.append(modes + [_means(column, level) for column in leaves.means.values()])
    names = [*leaves.modes, *leaves.means]
    pieces = []
    for number, (own, attributes) in enumerate(zip(ids, columns, strict=True)):
        texts = [_text(column, name, delimiter) for column, name in zip(attributes, names, strict=True)]
        marks = [own, *([pa.array([_above(own)], own.type)] if not number else [])]
        for place in reversed(range(len(marks))):  # what leads to the root comes before it
            mark = marks[place]
            level_text = pa.array([str(number - place)] * len(mark))
            feature = pc.binary_join_element_wise(level_text, _text(own, "the id", delimiter), *texts, delimiter)
            pieces.append((mark, feature))
    table = {
        f"id:{_kind(ids[0])}": pa.concat_arrays([mark for mark, _ in pieces]),
        "weight:float": pa.array(np.ones(sum(len(mark) for mark, _ in pieces))),
        "feature:string": pa.concat_arrays([feature for _, feature in pieces]),
    }
    _write_text(path, pa.table(table))


def _write_edges(path: Path, sources: Sequence[pa.Array], targets: Sequence[pa.Array]) -> None:
    kind, source, target = _kind(sources[0]), pa.concat_arrays(list(sources)), pa.concat_arrays(list(targets))
    table = {f"src_id:{kind}": source, f"dst_id:{kind}": target, "weight:float": pa.array(np.ones(len(source)))}
    _write_text(path, pa.table(table))


def _kind(ids: pa.Array) -> str:
    return "int64" if pa.types.is_integer(ids.type) else "string"


def _write_text(path: Path, table: pa.Table) -> None:
    header = "\t".join(table.column_names) + "\n"
    columns = [column.cast(pa.string()) for column in table.columns]
    lines = pc.binary_join_element_wise(*columns, "\t") if len(table) else pa.chunked_array([[]], pa.string())
    with open(path, "w", encoding="utf-8") as file:
        file.write(header)
        for chunk in lines.chunks:
            for start in range(0, len(chunk), 65536):
                file.write("\n".join(chunk.slice(start, 65536).to_pylist()) + "\n")


def _text(column: pa.Array, name: str, delimiter: str) -> pa.Array:
    text = pc.fill_null(column.cast(pa.string()), "")
    for what in (delimiter, "\t", "\n"):
        found = pc.match_substring(text, what)
        if pc.any(found).as_py():
            value = text.filter(found)[0].as_py()
            raise DataError(f"{value!r} has {what!r} in it, which ends an attribute", column=name)
    return text


def _modes(column: pa.Array, level: Level) -> pa.Array:
    """The most frequent value below each node, null where there is none; of equal ones the first of the leaves."""
    encoded = column.dictionary_encode()
    values = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    owner = _owner(level)
    there = values >= 0
    if pa.types.is_string(column.type):
        there &= ~np.isin(values, np.flatnonzero(pc.equal(encoded.dictionary, "").to_numpy(zero_copy_only=False)))
    known, counts = np.unique(owner[there] * (len(encoded.dictionary) + 1) + values[there], return_counts=True)
    node, value = known // (len(encoded.dictionary) + 1), known % (len(encoded.dictionary) + 1)
    order = np.lexsort((value, -counts, node))
    first = order[np.unique(node[order], return_index=True)[1]]
    best = np.full(len(level.start), -1)
    best[node[first]] = value[first]
    return encoded.dictionary.take(pa.array(best, mask=best < 0))


def _means(column: pa.Array, level: Level) -> pa.Array:
    """The mean of the leaves below each node, null where there is none."""
    owner, nodes = _owner(level), len(level.start)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    values = pc.fill_null(column.cast(pa.float64()), 0).to_numpy(zero_copy_only=False)
    count = np.bincount(owner[there], minlength=nodes)
    total = np.bincount(owner, weights=np.where(there, values, 0), minlength=nodes)
    mean = total / np.maximum(count, 1)
    if pa.types.is_integer(column.type):
        mean = np.round(mean)
    return pa.array(mean, mask=count == 0).cast(column.type)
