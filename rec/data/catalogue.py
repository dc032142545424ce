"""What top-K metrics are measured on: the ids of a catalogue, and users with the items that they should find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.config.errors import DataError
from rec.config.names import listed
from rec.data import targets
from rec.data.encoder import BadRows
from rec.data.item_file import Items, Span, refuse_twice
from rec.data.source import Source
from rec.features.columns import explode, is_list, is_text, kind_of

# What to do where texts were taken as one id each, but may be lists.
LISTS_HINT = (
    'a text is one id: if it holds several, name what is between them, retrieval { id_delimiter: ";" }, or write lists '
    "to Parquet"
)


@dataclass(frozen=True)
class Pairs:
    """Items of users: int64 [P] each, numbers of the users within their block and of items in the catalogue."""

    users: np.ndarray
    items: np.ndarray

    def distinct(self, *, without: Pairs | None = None, items: int) -> Pairs:
        """Each pair once, in the order of items and then users, but for those of `without`."""
        key = np.unique(self.items * (1 + self.users.max(initial=0)) + self.users) if len(self.users) else self.users
        width = 1 + self.users.max(initial=0)
        found = Pairs(key % width, key // width)
        if without is None or not len(without.users):
            return found
        new = ~np.isin(found.users * items + found.items, without.users * items + without.items)
        return Pairs(found.users[new], found.items[new])


@dataclass(frozen=True)
class ItemLists:
    """Item ids of the rows of a block.

    Attributes:
        rows: int64 [P], row of each id.
        keys: int64 [P], the ids' keys (`rec.data.targets.keys`).
    """

    rows: np.ndarray
    keys: np.ndarray


class Catalogue:
    """Ids of a catalogue by number; 24 bytes an item beside the ids.

    Args:
        pieces: ids and weights, as an item file has them.
        spans: where they stand, if that is known.

    Attributes:
        ids: in the order of the file.
        weights: float64 [V].

    Raises:
        DataError: no items, or one id twice.
    """

    def __init__(self, pieces: Sequence[tuple[pa.Array, np.ndarray]], *, spans: Sequence[Span] = ()) -> None:
        if not sum(len(ids) for ids, _ in pieces):
            raise DataError("the item file has no items")
        self.ids: pa.Array = pa.concat_arrays([ids for ids, _ in pieces])
        self.weights = np.concatenate([weights for _, weights in pieces])
        keys = targets.keys(self.ids)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        refuse_twice(self._keys, self._order, spans)
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if len(twice):
            raise DataError(f"item {self.ids[int(self._order[twice[0]])].as_py()!r} stands twice in the item file")

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Numbers of items by their keys, int64; -1 for those that are not there."""
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._order[at], -1)

    def pairs(self, lists: ItemLists, *, users: int) -> tuple[Pairs, np.ndarray]:
        """Pairs of rows and numbers of items, and how many distinct ids of each row are not there, int64 [users]."""
        numbers = self.find(lists.keys)
        lacking = numbers < 0
        distinct = np.unique(np.stack([lists.rows[lacking], lists.keys[lacking]]), axis=1)[0]
        return Pairs(lists.rows[~lacking], numbers[~lacking]), np.bincount(distinct, minlength=users)


class Categories:
    """Categories of the items of an item file, gathered as they pass.

    Args:
        column: of the file.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._keys: list[np.ndarray] = []

    def of(self, items: Iterable[Items]) -> Iterator[Items]:
        """The same items.

        Raises:
            DataError: the file has no such column.
        """
        for piece in items:
            there = next((b for b in (piece.rows, piece.place.batch) if self.column in b.schema.names), None)
            if there is None:
                raise piece.place.error(
                    0, f"no such column; there are {listed(piece.place.batch.schema.names)}", self.column
                )
            self._keys.append(targets.keys(there.column(self.column)))
            yield piece

    @property
    def keys(self) -> np.ndarray:
        """int64 [V], equal for equal categories."""
        return np.concatenate(self._keys)


@dataclass(frozen=True)
class UserBlock:
    """Neighbouring rows of a file of users.

    Attributes:
        rows: as they lie there.
        relevant: what they should find.
        seen: what they had before; None where the config does not say.
        file, numbers: where they stand, int64 [U] numbers of the rows in the file.
    """

    rows: pa.RecordBatch
    relevant: ItemLists
    seen: ItemLists | None
    file: str
    numbers: np.ndarray

    def error(self, bad: BadRows) -> DataError:
        """The error of rows that cannot be encoded, with the place of the first."""
        worst = bad.first
        row = int(self.numbers[worst.row])
        return DataError(str(worst).strip(), file=self.file, row=row, column=worst.column)


class Users:
    """Users and what they should find, in blocks of at most `most` rows.

    Args:
        source: columns of the user tower, `relevant`, `seen` and perhaps `label`.
        path: what it reads, for messages.
        relevant: column of the relevant items: an id, or a list of ids.
        seen: column of the items that they had before, or "".
        label: column whose rows count where it is above 0, unless relevant ids are lists; "" counts all.
        delimiter: see `item_lists`.

    Raises:
        DataError: ids of two kinds, numbers and texts.
    """

    def __init__(
        self, source: Source, path: str, *, relevant: str, seen: str = "", label: str = "", delimiter: str = ""
    ) -> None:
        self._source, self.path, self.relevant, self._seen = source, path, relevant, seen
        self._delimiter = delimiter
        self._label = "" if is_list(source.schema.field(relevant).type) else label
        kinds = [kind_of(source.schema.field(name).type)[1] for name in filter(None, (relevant, seen))]
        if len(set(kinds)) > 1:
            raise DataError(
                f"holds ids of kind {kinds[1]}, but {relevant} those of kind {kinds[0]}",
                file=source.files[0],
                column=seen,
            )

    @property
    def lists_hint(self) -> str:
        """How to say that a text holds several ids; "" where the relevant ids are no texts, or it is said."""
        return "" if self._delimiter or not pa.types.is_string(self.id_type) else LISTS_HINT

    @property
    def id_type(self) -> pa.DataType:
        """Type of the ids of relevant items."""
        kind = self._source.schema.field(self.relevant).type
        kind = kind.value_type if is_list(kind) else kind
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def blocks(self, most: int) -> Iterator[UserBlock]:
        """All rows, in the order of the files.

        Raises:
            DataError: a row that cannot be read, with its file and number.
        """
        for chain in self._source.chains:
            first, file = chain.first, self._source.files[chain.file]
            for piece in self._source.pieces(chain):
                if piece.bad:
                    bad = piece.bad[0]
                    raise DataError(bad.reason, file=file, row=first + bad.offset, column=bad.column)
                numbers = first + np.arange(piece.rows)
                first += piece.rows
                batch = piece.batch
                if self._label:
                    positive = np.asarray(pc.fill_null(batch.column(self._label), 0)).astype(np.float64) > 0
                    batch, numbers = batch.filter(pa.array(positive)), numbers[positive]
                for start in range(0, batch.num_rows, most):
                    yield self._block(batch.slice(start, most), file, numbers[start : start + most])

    def _block(self, rows: pa.RecordBatch, file: str, numbers: np.ndarray) -> UserBlock:
        relevant = item_lists(rows.column(self.relevant), self._delimiter)
        seen = item_lists(rows.column(self._seen), self._delimiter) if self._seen else None
        return UserBlock(rows, relevant, seen, file, numbers)


def item_lists(column: pa.Array, delimiter: str = "") -> ItemLists:
    """Ids of a column of lists or of single ids; null is no id.

    Args:
        column: of the rows.
        delimiter: between the ids of a text, where spaces around them do not count; "" takes a text as one id.
    """
    leaves = explode(column, delimiter)
    lengths = np.ones(len(column), np.int64) if leaves.lengths is None else leaves.lengths
    rows = np.repeat(np.arange(len(column)), lengths)
    values = leaves.values
    there = values.is_valid()
    if delimiter and is_text(values.type):
        values = pc.utf8_trim_whitespace(values.cast(pa.string()))
        there = pc.fill_null(pc.not_equal(values, ""), False)
    return ItemLists(rows[there.to_numpy(zero_copy_only=False)], targets.keys(values.filter(there)))
