"""What comes next: each user's items in order, the last one as the test, the one before as validation.

Reads MovieLens (as `movielens.read`, ratings in order of time, ties in the order of the file), or a text file with a
line "user item item ..." for each user or "user item" for each step (Amazon, LastFM as in S3-Rec's data, SASRec's).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert import movielens
from tools.convert.history import Windows, length_summary, lists, sort_behaviours
from tools.convert.output import SPLITS, Output
from tools.convert.user_items import UserItems, grouped, read_user_items

BLOCK_ROWS = 65_536
ROWS = ("users", "prefixes")


def convert(
    path: str | Path,
    output: str | Path,
    *,
    length: int = 200,
    min_count: int = 1,
    rows: str = "users",
    seed: int = 2024,
) -> dict:
    """Write the splits and the items; returns the info.

    Of a user's n items the test row has the last as its next item, the validation row the last but one. Training has
    one row a user, whose next item is the last but two: a model learns from all positions of its history; or one row
    for each prefix. Users with fewer than 3 items only train, rows without history are not written.

    Args:
        path: MovieLens, or a text file.
        output: folder of the splits and of `items`: item_id (from 1 without gaps), raw_id (in the source) and weight,
            its count in training; of MovieLens also genre, the first of the film's.
        length: longest history; the latest items are kept.
        min_count: items with fewer rows are left out.
        rows: of training: "users" or "prefixes".
        seed: of the order of the training rows.
    """
    found, genre = _read(Path(path))
    sequences = _kept(found, min_count)
    known, place = np.unique(sequences.items, return_inverse=True)
    items = place + 1
    windows, target, split = _rows(sequences, length=length, prefixes=rows == "prefixes")
    draw = np.random.default_rng(seed)
    trained = np.bincount(place[_trained(sequences)], minlength=len(known))
    with Output(output) as out:
        for number, name in enumerate(SPLITS):
            places = np.flatnonzero(split == number)
            places = draw.permutation(places) if name == "train" else places
            for start in range(0, len(places), BLOCK_ROWS):
                out.write(name, _table(sequences, items, windows, target, places[start : start + BLOCK_ROWS]))
        ids = np.arange(1, len(known) + 1, dtype=np.int32)
        columns = {"item_id": ids, "raw_id": known, "weight": trained.astype(np.float32)}
        if genre is not None:
            columns["genre"] = pa.array([genre[number - 1] for number in known.tolist()])
        out.write("items", pa.table(columns))
        out.info = {
            "dataset": "next_item",
            "protocol": "leave one out: the last item test, the one before valid",
            "source": Path(path).name,
            "train_rows": rows,
            "length": length,
            "min_count": min_count,
            "users": len(sequences.user),
            "interactions": len(items),
            "num_buckets": {"user_id": int(sequences.user.max()) + 1, "item_id": len(known) + 1},
            "history": {name: length_summary(windows.lengths[split == k]) for k, name in enumerate(SPLITS)},
        }
    return {"rows": out.rows, **out.info}


def _read(path: Path) -> tuple[UserItems, list[str] | None]:
    """Items of each user in order; of MovieLens the first genre of each film, films numbered from 1."""
    if path.is_dir() or zipfile.is_zipfile(path):
        movies = movielens.read(path)
        order = sort_behaviours(movies.user, movies.timestamp)
        sequences = grouped(movies.user[order].astype(np.int64), movies.movie[order].astype(np.int64))
        return sequences, [names[0] if names else "" for names in movies.genres]
    return read_user_items(path), None


def _kept(sequences: UserItems, min_count: int) -> UserItems:
    counts = np.bincount(sequences.items)
    keep = counts[sequences.items] >= min_count
    if not keep.any():
        raise DataError(f"no item comes {min_count} times (--min_count)")
    return grouped(sequences.user[sequences.row[keep]], sequences.items[keep])


def _trained(sequences: UserItems) -> np.ndarray:
    """Which of all items are training's: all but the last two of users with three or more, [all items]."""
    held_out = np.where(sequences.lengths >= 3, 2, 0)
    ends = sequences.offsets[1:] - held_out
    return np.arange(len(sequences.items)) < np.repeat(ends, sequences.lengths)


def _rows(sequences: UserItems, *, length: int, prefixes: bool) -> tuple[Windows, np.ndarray, np.ndarray]:
    """Histories, place of the next item, and number of the split of every row."""
    starts, ends, counts = sequences.offsets[:-1], sequences.offsets[1:], sequences.lengths
    place = np.arange(len(sequences.items))
    held = counts >= 3
    last = ends - np.where(held, 3, 1)  # of training
    split = np.full(len(place), -1)
    if prefixes:
        split[_trained(sequences)] = 0
    else:
        split[last] = 0
    split[ends[held] - 2] = 1
    split[ends[held] - 1] = 2
    split[starts] = -1  # nothing before it
    target = np.flatnonzero(split >= 0)
    first = np.maximum(np.repeat(starts, counts)[target], target - length)
    return Windows(first, target), target, split[target]


def _table(sequences: UserItems, items: np.ndarray, windows: Windows, target: np.ndarray, rows: np.ndarray) -> pa.Table:
    taken = windows.take(rows)
    return pa.table(
        {
            "user_id": sequences.user[sequences.row[target[rows]]],
            "item_id": items[target[rows]].astype(np.int32),
            "hist__item_id": lists(taken.offsets(), items[taken.places()].astype(np.int32)),
        }
    )
