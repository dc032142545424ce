"""What users had before, as numbers of items, so that they are not given it again."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data.catalogue import Catalogue, item_lists
from rec.data.source import check_columns
from rec.features.columns import INTEGER, TEXT, kind_of

log = logging.getLogger(__name__)


class Seen:
    """Items that users had before.

    Args:
        column: of the users' rows, an id or a list of ids.
        ids: of the items. Numbers and texts are compared as what the column has.
    """

    def __init__(self, column: str, ids: pa.Array) -> None:
        self.column, self._ids = column, ids
        self._catalogue: Catalogue | None = None
        self._named = self._known = 0

    def __call__(self, rows: pa.RecordBatch) -> list[np.ndarray]:
        """Numbers of the items that each row had.

        Raises:
            DataError: no such column, or numbers where the ids of the items are words.
        """
        check_columns("the input", [self.column], rows.schema.names)
        column = rows.column(self.column)
        if self._catalogue is None:
            ids = self._of_kind(column.type)
            self._catalogue = Catalogue([(ids, np.ones(len(ids)))])
        lists = item_lists(column)
        items = self._catalogue.pairs(lists, users=rows.num_rows)[0]
        self._named, self._known = self._named + len(lists.keys), self._known + len(items.items)
        return np.split(items.items, np.cumsum(np.bincount(items.users, minlength=rows.num_rows))[:-1])

    def tell(self) -> None:
        """Warns where not one of all ids was that of an item, so that nothing was left out."""
        if self._named and not self._known:
            log.warning('nothing was left out: none of the %d ids in "%s" is that of an item', self._named, self.column)

    def _of_kind(self, column: pa.DataType) -> pa.Array:
        kinds = kind_of(column)[1], kind_of(self._ids.type)[1]
        if kinds == (TEXT, INTEGER):
            return self._ids.cast(pa.string())
        if kinds == (INTEGER, TEXT):
            try:
                return self._ids.cast(pa.int64())
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"has numbers, but the ids of the items are texts ({error}); give it the items' ids",
                    column=self.column,
                ) from error
        return self._ids
