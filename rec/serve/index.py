"""The vectors of all items and an index over them, in a folder: written by one job, searched by others."""

# V items, U users, I interests of a user, D width of the vectors, K items found

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.config.errors import ConfigError, DataError
from rec.protos import export_pb2

ITEMS, INDEX, MANIFEST = "items.parquet", "index.faiss", "manifest.json"
CATEGORIES = "categories.parquet"
ID, VECTOR, CATEGORY = "id", "vector", "category"


def faiss() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss as library
    except ImportError as error:
        raise ConfigError(f"an index needs faiss: {error}", hint="pip install faiss-cpu") from error
    return library


def write_vectors(path: Path, pieces: Iterable[tuple[pa.Array, np.ndarray]]) -> np.ndarray:
    """Write ids and vectors as parquet, a row an item: `id`, and `vector`, a list of D float32.

    Args:
        path: the file.
        pieces: ids, and vectors [n, D].

    Returns:
        All vectors, [V, D].

    Raises:
        DataError: no items, or a vector that is not finite.
    """
    kept: list[np.ndarray] = []
    writer: pq.ParquetWriter | None = None
    try:
        for ids, vectors in pieces:
            vectors = np.ascontiguousarray(vectors, np.float32)
            if not np.isfinite(vectors).all():
                raise DataError("vectors of items are not finite: the training diverged")
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            table = pa.table({ID: ids, VECTOR: column})
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            kept.append(vectors)
    finally:
        if writer is not None:
            writer.close()
    if not sum(map(len, kept)):
        raise DataError("the item file has no items")
    return np.concatenate(kept)


def write_categories(path: Path, keys: np.ndarray) -> None:
    """Write a number for the category of each item, int64 [V], equal for equal categories."""
    pq.write_table(pa.table({CATEGORY: keys}), path)


def build(vectors: np.ndarray, config: export_pb2.ItemIndex) -> Any:
    """A faiss index for inner products over vectors [V, D]; cosine towers give vectors of length 1.

    Raises:
        ConfigError: a parameter that cannot be, or faiss is not installed.
    """
    library = faiss()
    count, width = vectors.shape
    kind = config.WhichOneof("kind") or "flat"
    if kind == "ivf":
        lists = config.ivf.nlist or min(count, max(1, round(4 * math.sqrt(count))))
        if lists > count:
            raise ConfigError(f"nlist is {lists}, but there are {count} items", config.ivf, "nlist")
        index = library.IndexIVFFlat(library.IndexFlatIP(width), width, lists, library.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # a small catalogue is no reason for its warning
        index.train(vectors)
        index.nprobe = config.ivf.nprobe
    elif kind == "hnsw":
        index = library.IndexHNSWFlat(width, config.hnsw.m, library.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.hnsw.ef_construction
        index.hnsw.efSearch = config.hnsw.ef_search
    else:
        index = library.IndexFlatIP(width)
    index.add(vectors)
    return index


def search(index: Any, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest items of users: float32 scores and int64 numbers, [U, K], -1 where fewer were found.

    Args:
        index: of faiss.
        users: [U, D], or [U, I, D]: then an item is as near as the interest nearest to it, and the lists of the
            interests are merged.
        k: K.
    """
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = max(index.hnsw.efSearch, k)
    k = min(k, index.ntotal)
    vectors = np.ascontiguousarray(users.reshape(-1, users.shape[-1]), np.float32)
    scores, numbers = index.search(vectors, k)
    if users.ndim == 2:
        return scores, numbers
    shape = len(users), users.shape[1] * k
    return merged(scores.reshape(shape), numbers.reshape(shape), k)


def merged(scores: np.ndarray, numbers: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The K best of several lists of each user, each item once with its largest score.

    What is among the K best by its largest score is among the K best of that list, so nothing is lost.

    Args:
        scores: [U, n].
        numbers: of the items, -1 for none.
        k: K, at most n.
    """
    scores = np.where(numbers < 0, -np.inf, scores).astype(np.float32)
    # By item, and of each item the largest score first: the others are copies.
    order = np.lexsort((-scores, numbers), axis=1)
    scores, numbers = (np.take_along_axis(x, order, 1) for x in (scores, numbers))
    copy = np.zeros(numbers.shape, bool)
    copy[:, 1:] = numbers[:, 1:] == numbers[:, :-1]
    scores, numbers = np.where(copy, -np.inf, scores).astype(np.float32), np.where(copy, -1, numbers)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)


def agreement(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact nearest items [U, K] that were found."""
    row = np.arange(len(exact))[:, None] * (1 + max(exact.max(initial=0), found.max(initial=0)))
    return float(np.isin((exact + row)[exact >= 0], (found + row)[found >= 0]).mean())


class ItemIndex:
    """An index folder.

    Args:
        folder: what `--mode index` wrote.

    Attributes:
        ids: of the items, [V].
        manifest: `kind`, `items`, `dimension`, `step` of the exported towers, and what was measured.

    Raises:
        DataError: there is none, or it is not whole.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        missing = [name for name in (MANIFEST, INDEX, ITEMS) if not (folder / name).is_file()]
        if missing:
            raise DataError(f"no index: it has no {missing[0]}; write one by --mode index", file=str(folder))
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        self.ids: pa.Array = pq.read_table(folder / ITEMS, columns=[ID])[ID].combine_chunks()
        self._index = faiss().read_index(str(folder / INDEX))
        self._folder = folder

    @cached_property
    def categories(self) -> np.ndarray:
        """Category of each item, int64 [V].

        Raises:
            DataError: it was written without.
        """
        path = self._folder / CATEGORIES
        if not path.is_file():
            raise DataError("the index was written without categories; run --mode index again", file=str(self._folder))
        return pq.read_table(path)[CATEGORY].to_numpy()

    def diverse(
        self,
        users: np.ndarray,
        k: int,
        *,
        weight: float,
        candidates: int = 0,
        without: Sequence[np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, but lists in the order of `rec.ops.diverse.diversify`, with the items' own scores.

        Args:
            users: [U, D], or interests [U, I, D].
            k: K.
            weight: what an item loses for each item of its category above it.
            candidates: items that a list is chosen from; 0 is four times as many as are listed.
            without: numbers of items that each user does not get.
        """
        import torch

        from rec.ops.diverse import diversify

        scores, numbers = self.search(users, max(k, candidates or 4 * k), without=without)
        category = torch.from_numpy(self.categories[np.maximum(numbers, 0)])
        chosen = diversify(torch.from_numpy(scores), category, weight=weight, count=min(k, scores.shape[1])).numpy()
        return np.take_along_axis(scores, chosen, 1), np.take_along_axis(numbers, chosen, 1)

    def search(
        self, users: np.ndarray, k: int, *, without: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The K nearest items of users, from the nearest down.

        Args:
            users: [U, D], or interests [U, I, D].
            k: K.
            without: numbers of items that each user does not get.

        Returns:
            float32 scores and int64 numbers, [U, K]; -inf and -1 where fewer were found.
        """
        more = max(map(len, without), default=0) if without is not None else 0
        scores, numbers = search(self._index, users, k + more)
        gone = numbers < 0
        if without is not None:
            gone |= np.array([np.isin(row, taken) for row, taken in zip(numbers, without, strict=True)], bool).reshape(
                numbers.shape
            )
        # stable: what stays keeps its order
        order = np.argsort(gone, axis=1, kind="stable")[:, :k]
        scores, numbers, gone = (np.take_along_axis(x, order, 1) for x in (scores, numbers, gone))
        return np.where(gone, -np.inf, scores).astype(np.float32), np.where(gone, -1, numbers)
