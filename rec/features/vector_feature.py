"""`vector_feature`, `sequence_vector_feature`: the fixed vectors of ids, from a memory-mapped file."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from rec.config.errors import ConfigError
from rec.features.base import FEATURES, Encoded, Feature, Scope
from rec.features.bucketize import Bucketizer, Buckets, Words
from rec.features.columns import BOOL, FLOAT, INTEGER, NULL, TEXT, kind_of, missing, parents_of
from rec.features.steps import split_steps
from rec.features.vocabulary import Vocabulary, read_vocab_file
from rec.protos import feature_pb2

# N ids of all rows, D width of a vector

_UNKNOWN = -1


class VectorFile:
    """A .npy file of vectors, opened in each process that looks something up.

    Args:
        path: of the file.

    Attributes:
        count: number of vectors.
        width: D.

    Raises:
        ValueError: it is no array of floats with two dimensions.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._array: np.ndarray | None = None
        array = self._open()
        if array.ndim != 2 or array.dtype.kind != "f":
            raise ValueError(f"holds {array.dtype} {list(array.shape)}, expected floats [vectors, width]")
        self.count, self.width = array.shape

    def take(self, at_N: np.ndarray) -> np.ndarray:
        """Vectors by number, float32 [N, D]."""
        return self._open()[at_N].astype(np.float32, copy=False)

    def _open(self) -> np.ndarray:
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return self._array

    def __getstate__(self) -> dict:
        # The mapped array would travel with its contents.
        return {**self.__dict__, "_array": None}


@FEATURES.register(feature_pb2.VectorFeature)
class VectorFeature(Feature):
    """The vector of a row's id, or of the id of each step: dense values.

    Args:
        config: the message.
        scope: where it stands.
    """

    def __init__(self, config: feature_pb2.VectorFeature, scope: Scope) -> None:
        super().__init__(config, scope)
        self._vectors = self._open()
        self.value_dim = self.width = self._vectors.width
        self._bucketizer = self._ids()
        self._refuses = config.unknown == feature_pb2.VectorFeature.REFUSE

    def encode(self, rows: pa.RecordBatch) -> Encoded:
        """`values` float32 [B, D], of a sequence [sum L, D] with `lengths` int32 [B]."""
        ids, lengths = self.column(rows), None
        if self.is_sequence:
            ids, lengths = split_steps(ids, self.sequence_delim, length=self.sequence_length, keep_last=self.keep_last)
        at_N, bad = self._bucketizer(ids)
        gone = missing(ids)
        known = at_N != _UNKNOWN
        wrong = ~known if self._refuses else np.zeros(len(known), bool)
        reason = "has no vector"
        if bad is not None:
            known, wrong, reason = known & ~bad, wrong | bad, self._bucketizer.reason
        if gone is not None:
            known, wrong = known & ~gone, wrong & ~gone
        if known.all():
            values = self._vectors.take(at_N)
        else:
            values = np.zeros((len(at_N), self.width), np.float32)
            values[known] = self._vectors.take(at_N[known])
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            wrong, reason = wrong | ~finite, "has a vector that is not finite"
        return Encoded(
            values,
            None if lengths is None else lengths.astype(np.int32),
            bad=parents_of(wrong, lengths) if wrong.any() else None,
            reason=reason,
        )

    def accepts(self, column: str, kind: pa.DataType) -> str | None:
        """Integers, strings, bools and whole floats; lists of them for sequences."""
        depth, leaf = kind_of(kind)
        if leaf in (INTEGER, TEXT, BOOL, FLOAT, NULL) and depth <= self.is_sequence:
            return None
        return "integer, string, bool or float of whole numbers" + (", or a list of them" if self.is_sequence else "")

    def arrow_type(self, column: str) -> pa.DataType:
        """int64 where ids are numbers, else string; a list of it for steps."""
        leaf = pa.int64() if isinstance(self._bucketizer, Buckets) else pa.string()
        return pa.list_(leaf) if self.is_sequence else leaf

    def assets(self) -> dict[str, str]:
        """Its vectors and their ids."""
        return {field: self._path(field) for field in ("vectors_file", "ids_file") if getattr(self.config, field)}

    def _open(self) -> VectorFile:
        path = self._path("vectors_file")
        what = f'feature "{self.name}": vectors_file "{path}"'
        if not os.path.isfile(path):
            raise ConfigError(
                f"{what} does not exist",
                self.config,
                "vectors_file",
                hint="give the path of a .npy file, relative to where the command runs",
            )
        try:
            return VectorFile(path)
        except ValueError as e:
            raise ConfigError(
                f"{what} {e}",
                self.config,
                "vectors_file",
                hint="write one with numpy.save, an array of float16 or float32 [vectors, width]",
            ) from e

    def _ids(self) -> Bucketizer:
        count = self._vectors.count
        if not self.config.ids_file or self.scope.encoded:
            if self.config.ids_file:
                self.notes.append("ids_file has no effect with fg_mode FG_NONE, where columns hold numbers of vectors")
            return Buckets(count, _UNKNOWN)
        words, numbers = read_vocab_file(
            self._path("ids_file"), self.config, label=f'feature "{self.name}"', field="ids_file"
        )
        if numbers.max(initial=-1) >= count or len(words) > count:
            raise ConfigError(
                f'feature "{self.name}": ids_file "{self._path("ids_file")}" has {len(words)} ids, up to number '
                f"{int(numbers.max(initial=-1))}, for {count} vectors",
                self.config,
                "ids_file",
                hint="write one line for each vector, in their order",
            )
        return Words(Vocabulary(words, numbers), rows=count, other=_UNKNOWN)

    def _path(self, field: str) -> str:
        return os.path.join(self.scope.asset_dir, getattr(self.config, field))
