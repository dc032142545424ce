"""The catalogue as the encoder sees it: encoded once, compact, in memory that all workers map."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from rec.data import targets
from rec.data.alias import alias_tables, draw
from rec.data.encoder import BadRows, Encoder
from rec.data.item_file import Items, Span, refuse_twice
from rec.data.shared import SharedArrays
from rec.features.base import Feature, ones

log = logging.getLogger(__name__)

# Rounds of drawing again what may not be drawn, before the rest of the catalogue is looked at as a whole.
_ROUNDS = 32


class ItemSource(Protocol):
    """Items in pieces: `rec.data.item_file.ItemFile`, or the nodes of a tree."""

    def items(self, id_type: pa.DataType | None = None) -> Iterator[Items]:
        """All of them; ids become of the type."""


class ItemTable:
    """Items in the order of their keys, with encoded features and what draws by weight need.

    Memory for each item: its key 8 bytes, log of its probability 4, alias table 8 (none where all weights are
    equal), 4 for each id of a feature (8 where a table has 2^31 rows or more) and each float, 4 more where a feature
    has several ids.

    Args:
        file: what is read.
        features: those of the item tower, and stubs that they read.
        exponent: items are drawn in proportion to weight ** exponent.
        id_type: type of the item ids in the data.

    Raises:
        DataError: a wrong item, with its file and row.
    """

    def __init__(
        self,
        file: ItemSource,
        features: Sequence[Feature],
        *,
        exponent: float = 1.0,
        id_type: pa.DataType | None = None,
    ) -> None:
        began = time.perf_counter()
        for feature in features:
            if feature.is_sequence and not feature.stub:
                raise DataError(f'feature "{feature.name}" is a sequence, which sampled items cannot have yet')
        self._names = [f.name for f in features if not f.stub]
        self._hideable = {f.name for f in features if f.use_mask and not f.stub}
        encoder = Encoder(features)
        keys: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        parts: dict[str, list[np.ndarray]] = {name: [] for f in features for name in f.tensors()}
        places: list[Span] = []
        for items in file.items(id_type):
            keys.append(targets.keys(items.ids))
            weights.append(items.weights)
            places.append(items.span)
            for name, array in _encoded(encoder, items).items():
                parts[name].append(_compact(array))
            like = items.rows.slice(0, 1)
        if not keys or not sum(map(len, keys)):
            raise DataError("the item file has no items")
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        key = key[order]
        refuse_twice(key, order, places)
        arrays = {"key": key} | _distribution(np.concatenate(weights)[order], exponent, file=places[0][0])
        if self._hideable:
            # One more item, whose hideable features are missing: what `features` gives in place of hidden ones.
            for name, array in encoder.encode(like, mask=np.ones(1, bool)).features.items():
                parts[name].append(_compact(array))
            order = np.append(order, len(key))
        for name in self._names:
            arrays |= _columns(name, parts, order)
        self.arrays = SharedArrays(arrays)
        self.dtypes = {name: dtype for f in features for name, dtype in f.tensors().items()}
        log.info(
            "%d items, %.0f bytes each (%.1f MiB, shared by the reader's workers), encoded in %.1f s",
            len(self),
            self.arrays.nbytes / len(self),
            self.arrays.nbytes / 2**20,
            time.perf_counter() - began,
        )

    def __len__(self) -> int:
        return len(self.arrays["key"])

    @property
    def log_q(self) -> np.ndarray:
        """float32 [V]: log of the probability that one draw takes the item; -inf for weight 0."""
        return self.arrays["log_q"]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Numbers of items by their keys, int64; -1 for those that the catalogue lacks."""
        known = self.arrays["key"]
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, at, -1)

    def draw(self, count: int, rng: np.random.Generator, *, exclude: np.ndarray) -> np.ndarray:
        """Independent draws by weight.

        Args:
            count: how many.
            rng: source of randomness.
            exclude: numbers of items that are not drawn; where no other has a weight they are, after all.

        Returns:
            int64 [count], numbers of items.
        """
        drawn = self._draw(count, rng)
        if not len(exclude):
            return drawn
        exclude = np.unique(exclude)
        again = np.flatnonzero(_among(exclude, drawn))
        for _ in range(_ROUNDS):
            if not len(again):
                return drawn
            drawn[again] = self._draw(len(again), rng)
            again = again[_among(exclude, drawn[again])]
        if len(again):
            rest = np.exp(self.log_q.astype(np.float64))
            rest[exclude] = 0
            if rest.sum() > 0:
                drawn[again] = rng.choice(len(self), len(again), p=rest / rest.sum())
        return drawn

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        if "alias" not in self.arrays:
            return rng.integers(len(self), size=count)
        return draw(self.arrays["prob"], self.arrays["alias"], count, rng)

    def features(self, items: np.ndarray, *, hidden: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What the encoder would give for these items: `<feature>.values`, `.lengths`, `.weights`.

        Args:
            items: their numbers.
            hidden: bool, those whose `use_mask` features are missing.
        """
        found: dict[str, np.ndarray] = {}
        for name in self._names:
            numbers = items
            if hidden is not None and name in self._hideable:
                numbers = np.where(hidden, len(self), items)
            values = self.arrays[f"{name}.values"]
            dtype = self.dtypes[f"{name}.values"]
            starts = self.arrays.get(f"{name}.starts")
            if starts is None:
                found[f"{name}.values"] = values[numbers].astype(dtype, copy=False)
                if f"{name}.lengths" in self.dtypes:
                    found[f"{name}.lengths"] = ones(len(numbers))
                at = numbers
            else:
                begin = starts[numbers].astype(np.int64)
                lengths = starts[numbers + 1] - begin
                at = np.repeat(begin - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
                found[f"{name}.values"] = values[at].astype(dtype, copy=False)
                found[f"{name}.lengths"] = lengths.astype(np.int32)
            if f"{name}.weights" in self.arrays:
                found[f"{name}.weights"] = self.arrays[f"{name}.weights"][at]
        return found


def _encoded(encoder: Encoder, items: Items) -> dict[str, np.ndarray]:
    try:
        return encoder.encode(items.rows).features
    except BadRows as err:
        worst = err.first
        raise items.place.error(worst.row, str(worst).strip(), worst.column) from err
    except DataError as err:
        err.file = err.file or items.place.file
        raise


def _compact(array: np.ndarray) -> np.ndarray:
    """int64 ids as int32 where they fit."""
    if array.dtype == np.int64 and (not len(array) or array.max() < 2**31):
        return array.astype(np.int32)
    return array.copy()


def _distribution(weights: np.ndarray, exponent: float, *, file: str) -> dict[str, np.ndarray]:
    if not weights.any():
        raise DataError("the weights of all items are 0", file=file, column="weight")
    # As shares of the largest, which neither their sum nor a power makes too large.
    weights = weights / weights.max()
    if exponent != 1:
        weights = weights**exponent * (weights > 0)
    total = weights.sum()
    with np.errstate(divide="ignore"):
        found = {"log_q": np.log(weights / total).astype(np.float32)}
    if weights.min() != weights.max():
        found["prob"], found["alias"] = alias_tables(weights)
    return found


def _columns(name: str, parts: dict[str, list[np.ndarray]], order: np.ndarray) -> dict[str, np.ndarray]:
    """A feature's values in the order of the keys; `starts` too where items do not have exactly one id."""
    values = np.concatenate(parts[f"{name}.values"])
    weights = np.concatenate(parts[f"{name}.weights"]) if f"{name}.weights" in parts else None
    lengths = np.concatenate(parts[f"{name}.lengths"]) if f"{name}.lengths" in parts else None
    found = {}
    at = order
    if lengths is not None and not (lengths == 1).all():
        begin = np.cumsum(lengths, dtype=np.int64) - lengths
        sorted_lengths = lengths[order].astype(np.int64)
        starts = np.concatenate(([0], np.cumsum(sorted_lengths)))
        at = np.repeat(begin[order] - starts[:-1], sorted_lengths) + np.arange(int(starts[-1]))
        found[f"{name}.starts"] = starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)
    found[f"{name}.values"] = values[at]
    if weights is not None:
        found[f"{name}.weights"] = weights[at]
    return found


def _among(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which values are among the sorted `known`."""
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return known[at] == values
