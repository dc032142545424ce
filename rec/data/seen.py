"""What users had before, as numbers of items, so that they are not given it again."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data.catalogue import LISTS_HINT, Catalogue, item_lists
from rec.data.source import check_columns
from rec.features.columns import INTEGER, TEXT, is_text, kind_of

log = logging.getLogger(__name__)


class Seen:
    """Items that users had before.

    Args:
        column: of the users' rows, an id or a list of ids.
        ids: of the items. Numbers and texts are compared as what the column has.
        delimiter: between the ids of a text; see `rec.data.catalogue.item_lists`.
    """

    def __init__(self, column: str, ids: pa.Array, *, delimiter: str = "") -> None:
        self.column, self._ids, self._delimiter = column, ids, delimiter
        self._texts = False
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
            self._texts = is_text(column.type)
        lists = item_lists(column, self._delimiter)
        items = self._catalogue.pairs(lists, users=rows.num_rows)[0]
        self._named, self._known = self._named + len(lists.keys), self._known + len(items.items)
        return np.split(items.items, np.cumsum(np.bincount(items.users, minlength=rows.num_rows))[:-1])

    def tell(self) -> None:
        """Warns where not one of all ids was that of an item, so that nothing was left out."""
        if self._named and not self._known:
            log.warning(
                'nothing was left out: none of the %d ids in "%s" is that of an item%s',
                self._named,
                self.column,
                f"; {LISTS_HINT}" if self._texts and not self._delimiter else "",
            )

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
