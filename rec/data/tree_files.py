"""Files of a tree: its nodes with their attributes, and its edges, as `tools.tree` or graph-learn write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data import targets
from rec.data.edges import edge_keys
from rec.data.item_file import ItemFile, Items, Rows, TableFile

LEVEL = "tree_level"


class NodeFile:
    """Ids, weights, levels and attributes of the nodes of a tree.

    The columns are id, weight and attributes (joined by `attr_delimiter`: the level, the id again, then the others of
    `attr_fields`), whatever they are called; or a column for each attribute, as item files have them.

    Args:
        path: see `rec.data.item_file.TableFile`.
        id_field: the data's column of item ids.
        attributes: `attr_fields`; `tree_level` and the id are added in front where they are missing.
        attr_delimiter: between the attributes.
        field_delimiter: between columns of text files.

    Attributes:
        keys, levels: of all nodes that `items` has given, in pieces.
    """

    def __init__(
        self, path: str, *, id_field: str, attributes: Sequence[str], attr_delimiter: str, field_delimiter: str = ""
    ) -> None:
        self.path = path
        names = list(attributes)
        if names[:1] != [LEVEL]:
            names.insert(0, LEVEL)
        if names[1:2] != [id_field]:
            names.insert(1, id_field)
        self.attributes = names
        self._file = ItemFile(
            path,
            id_field=id_field,
            attributes=names,
            attr_delimiter=attr_delimiter,
            field_delimiter=field_delimiter,
            packed_by_place=True,
        )
        self.keys: list[np.ndarray] = []
        self.levels: list[np.ndarray] = []

    def items(self, id_type: pa.DataType | None = None) -> Iterator[Items]:
        """All nodes but those above the root, in pieces.

        Raises:
            DataError: as `ItemFile.items`, and a level that is no whole number; with file and row.
        """
        self.keys, self.levels = [], []
        for items in self._file.items(id_type):
            levels = _levels(items.rows.column(LEVEL), items.place)
            real = levels >= 0
            if not real.all():
                keep, first = pa.array(real), int(real.argmax())
                if not real[first:].all():
                    row = first + int((~real[first:]).argmax())
                    raise items.place.error(row, f"level {levels[row]}: nodes above the root stand first", LEVEL)
                place = Rows(items.place.batch.slice(first), items.place.file, items.place.first + first)
                items = Items(items.ids.filter(keep), items.weights[real], items.rows.slice(first), place)
                levels = levels[real]
            self.keys.append(targets.keys(items.ids))
            self.levels.append(levels)
            yield items


def _levels(column: pa.Array, place: Rows) -> np.ndarray:
    try:
        if column.null_count:
            raise pa.ArrowInvalid("null")
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        for row, value in enumerate(column.to_pylist()):
            try:
                int(value)
            except (TypeError, ValueError):
                raise place.error(row, f"{value!r} is no level of the tree", LEVEL) from None
        raise


def edges(
    path: str, id_type: pa.DataType, *, field_delimiter: str = ""
) -> Iterator[tuple[np.ndarray, np.ndarray, Rows]]:
    """Keys of the two ends of the edges of a file, int64 each, in pieces with where they stand.

    Raises:
        DataError: a null or unreadable id, with file and row.
    """
    file = TableFile(path, delimiter=field_delimiter)
    if len(file.names) < 2:
        raise DataError(f"an edge has two ends; this file has {file.names}", file=path)
    for place in file.rows():
        yield edge_keys(place, 0, id_type), edge_keys(place, 1, id_type), place
