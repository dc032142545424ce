"""`python -m tools.tree build`: the tree of a tree-based model from an item file, by category or by vectors.

The first tree halves the items in the order of their categories; after a training, `--mode index` writes vectors of the
items, and `--vectors <model_dir>/index/items.parquet` builds the next tree of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data import targets
from rec.data.item_file import ItemFile
from rec.data.parquet_source import ParquetSource
from tools.tree.order import by_category, by_vectors
from tools.tree.write import Leaves, write

DONE, WRONG_DATA = 0, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a tree from the command line; exit code 3 for wrong data."""
    given = parser().parse_args(arguments)
    try:
        about = build(given)
    except (DataError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_DATA
    print(json.dumps(about, indent=1))
    print(f"written to {given.output}; layer_num_sample needs {len(about['levels'])} numbers, 0 first")
    if "num_buckets" in about:
        buckets = about["num_buckets"]
        print(f"ids of nodes reach {buckets - 1}: {given.item_id_field} needs num_buckets: {buckets}")
    return DONE


def parser() -> argparse.ArgumentParser:
    """Arguments of the command; those that TorchEasyRec's init_tree and cluster_tree have are called as there."""
    p = argparse.ArgumentParser(prog="python -m tools.tree", description=__doc__)
    command = p.add_subparsers(dest="command", required=True).add_parser("build", help="write the files of a tree")
    add = command.add_argument
    add("--item_input_path", required=True, help="item file: parquet, csv or text with tabs")
    add("--item_id_field", required=True, help="its column of ids (or id)")
    kind = command.add_mutually_exclusive_group(required=True)
    kind.add_argument("--cate_id_field", help="column of the category: halves the items in the order of categories")
    kind.add_argument("--vectors", metavar="PATH", help="parquet of vectors of the items: recursive balanced k-means")
    add("--vector_id_field", default="id", help="column of ids beside the vectors (%(default)s)")
    add("--embedding_field", default="vector", help="column of the vectors (%(default)s)")
    add(
        "--attr_fields",
        type=_names,
        default=[],
        metavar="A,B",
        help="attributes; inner nodes have the most frequent value",
    )
    add(
        "--raw_attr_fields",
        type=_names,
        default=[],
        metavar="A,B",
        help="attributes of which inner nodes have the mean",
    )
    add("--attr_delimiter", default=",", help="between attributes in the node table (%(default)s)")
    add("--n_cluster", type=int, default=2, help="children of a node (%(default)s)")
    add("--seed", type=int, default=0, help="of the order of categories and of items within (%(default)s)")
    add("--output", required=True, help="folder of node_table.txt, edge_table.txt and predict_edge_table.txt")
    return p


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def build(given: argparse.Namespace) -> dict:
    """Build what the arguments ask for; returns what is known of the tree.

    Raises:
        DataError: what is wrong with the files.
    """
    if given.n_cluster < 2:
        raise DataError(f"n_cluster is {given.n_cluster}, expected at least 2")
    ids, items = read_items(given)
    leaves = Leaves(
        ids,
        {name: _column(items, name) for name in given.attr_fields},
        {name: _column(items, name) for name in given.raw_attr_fields},
    )
    if given.vectors:
        vectors = _vectors(given, leaves.ids)
        order = by_vectors(vectors, children=given.n_cluster)
    else:
        category = _column(items, given.cate_id_field).dictionary_encode().indices
        order = by_category(np.asarray(category.fill_null(-1)), seed=given.seed)
    try:
        return write(leaves, order, given.output, children=given.n_cluster, delimiter=given.attr_delimiter)
    except DataError as error:
        error.file = error.file or given.item_input_path
        raise


def read_items(given: argparse.Namespace) -> tuple[pa.Array, pa.Table]:
    """Ids of the items, and the attributes that the arguments name.

    Where a text file does not say what ids and `raw_attr_fields` are, they are numbers if all of them are.

    Raises:
        DataError: no such file or column, no items, an item without an id.
    """
    names = [*given.attr_fields, *given.raw_attr_fields, *filter(None, [given.cate_id_field])]
    file = ItemFile(given.item_input_path, id_field=given.item_id_field, attributes=list(dict.fromkeys(names)))
    pieces = list(file.items())
    rows = pa.Table.from_batches([piece.rows for piece in pieces])
    for name in given.raw_attr_fields:
        if not file.says_type(name):
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, name, _number(rows[name], pa.float64()))
    ids = _column(
        pa.table({given.item_id_field: pa.chunked_array([piece.ids for piece in pieces])}), given.item_id_field
    )
    return ids if file.says_type() else _number(ids, pa.int64()), rows


def _number(column: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return column


def read(path: str, columns: Sequence[str]) -> pa.Table:
    """Columns of parquet files.

    Raises:
        DataError: no such file or column.
    """
    names = list(dict.fromkeys(columns))
    source = ParquetSource(path, names)
    pieces = [piece.batch for chain in source.chains for piece in source.pieces(chain)]
    return pa.Table.from_batches(pieces, schema=source.schema).select(names)


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        raise DataError(f"holds {column.type}; a node has one value of each attribute", column=name)
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _vectors(given: argparse.Namespace, ids: pa.Array) -> np.ndarray:
    table = read(given.vectors, [given.vector_id_field, given.embedding_field])
    known = targets.keys(_column(table, given.vector_id_field))
    rows = pa.concat_arrays(table[given.embedding_field].chunks)
    width = len(rows[0]) if len(rows) else 0
    flat = np.asarray(rows.flatten(), np.float32)
    if rows.null_count or len(flat) != width * len(rows) or not np.isfinite(flat).all():
        raise DataError(
            "vectors must be lists of one length of finite numbers", file=given.vectors, column=given.embedding_field
        )
    order = np.argsort(known, kind="stable")
    wanted = targets.keys(ids)
    at = np.minimum(np.searchsorted(known[order], wanted), max(len(known) - 1, 0))
    lacking = known[order][at] != wanted if len(known) else np.ones(len(wanted), bool)
    if lacking.any():
        first = ids[int(lacking.argmax())].as_py()
        raise DataError(f"{int(lacking.sum())} items have no vector, the first is {first!r}", file=given.vectors)
    return flat.reshape(-1, width)[order[at]]


if __name__ == "__main__":
    sys.exit(main())
