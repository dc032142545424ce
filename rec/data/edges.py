"""Items that belong to users: known positives, and hard negatives."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data import targets
from rec.data.item_file import Rows, TableFile, ids_of
from rec.data.items import ItemTable
from rec.data.shared import SharedArrays

log = logging.getLogger(__name__)


class Edges:
    """For each user the items of an edge file, 4 bytes an edge and 16 a user, shared by all workers.

    Args:
        path: a file with columns user, item and perhaps weight, in this order whatever they are called.
        table: the catalogue; items that it lacks are left out.
        user_type: type of the users' ids in the data.
        item_type: type of the items' ids in the data.
        field_delimiter: between columns of text files.

    Raises:
        DataError: a null or unreadable id, with file and row.
    """

    def __init__(
        self,
        path: str,
        table: ItemTable,
        *,
        user_type: pa.DataType,
        item_type: pa.DataType,
        field_delimiter: str = "",
    ) -> None:
        file = TableFile(path, delimiter=field_delimiter)
        if len(file.names) < 2:
            raise DataError(f"an edge has a user and an item; this file has {file.names}", file=path)
        users, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for place in file.rows():
            users.append(edge_keys(place, 0, user_type))
            items.append(table.find(edge_keys(place, 1, item_type)))
        user, item = np.concatenate(users), np.concatenate(items)
        lost = int((item < 0).sum())
        if lost:
            log.warning("%s: %d of %d edges lead to items that the item file lacks", path, lost, len(item))
            user, item = user[item >= 0], item[item >= 0]
        if not len(item):
            log.warning("%s: has no edge to an item of the item file, so it changes nothing", path)
        order = np.lexsort((item, user))
        user, item = user[order], item[order]
        known, first = np.unique(user, return_index=True)
        starts = np.append(first, len(user)).astype(np.int64)
        self.arrays = SharedArrays({"user": known, "starts": starts, "item": item.astype(np.int32)})

    def of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Edges of users.

        Args:
            users: keys [B].

        Returns:
            (row, item) of each edge, int64 [P]: position in `users`, number of the item; rows in order.
        """
        known, starts = self.arrays["user"], self.arrays["starts"]
        if not len(known):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(known, users), len(known) - 1)
        begin = starts[at]
        lengths = np.where(known[at] == users, starts[at + 1] - begin, 0)
        rows = np.repeat(np.arange(len(users)), lengths)
        places = np.arange(len(rows)) + np.repeat(begin - np.cumsum(lengths) + lengths, lengths)
        return rows, self.arrays["item"][places].astype(np.int64)


def edge_keys(place: Rows, index: int, kind: pa.DataType) -> np.ndarray:
    """Keys of the ids of one end of edges, int64.

    Args:
        place: rows of an edge file.
        index: number of the column, whatever it is called.
        kind: type of the ids in the data.

    Raises:
        DataError: a null or unreadable id, with its row.
    """
    name = place.batch.schema.names[index]
    return targets.keys(ids_of(place.batch.column(index), kind, place, name, null="an edge with an end missing"))
