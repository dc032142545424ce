"""What comes next: each user's items in order, the last one as the test, the one before as validation.

Reads MovieLens (as `movielens.read`, ratings in order of time, ties in the order of the file), or a text file with a
line "user item item ..." for each user or "user item" for each step (Amazon, LastFM as in S3-Rec's data, SASRec's).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert import movielens
from tools.convert.history import Windows, length_summary, lists, sort_behaviours
from tools.convert.output import SPLITS, Output, strings
from tools.convert.user_items import UserItems, grouped, read_user_items

BLOCK_ROWS = 65_536
ROWS = ("users", "prefixes")


@dataclass(frozen=True)
class Attributes:
    """What is known of users and items beside their interactions: columns by name.

    Attributes:
        users: [users], of users 1, 2, ...
        items: [items of the source], of items 1, 2, ... of the source.
    """

    users: Mapping[str, pa.Array] = field(default_factory=dict)
    items: Mapping[str, pa.Array] = field(default_factory=dict)


def convert(
    path: str | Path,
    output: str | Path,
    *,
    length: int = 200,
    min_count: int = 1,
    rows: str = "users",
    latest: int = 0,
    seed: int = 2024,
) -> dict:
    """Write the splits and the items; returns the info.

    Of a user's n items the test row has the last as its next item, the validation row the last but one; both have all
    items before it, however many, as `seen_ids`. Training has one row a user, whose next item is the last but two: a
    model learns from all positions of its history; or one row for each prefix. Users with fewer than 3 items only
    train, rows without history are not written.

    Args:
        path: MovieLens, or a text file.
        output: folder of the splits and of `items`: item_id (from 1 without gaps), raw_id (in the source) and weight,
            its count in training. Of MovieLens also genre, the first of the film's, which rows have too, beside
            the user's gender, age and occupation.
        length: longest history; the latest items are kept.
        min_count: items with fewer rows are left out.
        rows: of training: "users" or "prefixes".
        latest: of prefixes, the most of a user, its longest; 0 keeps all. So users count alike (Covington et al.,
            RecSys 2016, section 3.4), and an epoch is shorter.
        seed: of the order of the training rows.

    Raises:
        DataError: the file is wrong, nothing is left of it, or `latest` does not fit `rows`.
    """
    if latest and rows != "prefixes":
        raise DataError("--latest chooses among prefixes; give --rows prefixes too")
    if latest < 0:
        raise DataError(f"--latest is {latest}, expected 0 or more")
    found, attributes = _read(Path(path))
    sequences = _kept(found, min_count)
    known, place = np.unique(sequences.items, return_inverse=True)
    items = (place + 1).astype(np.int32)
    of_items = {name: column.take(pa.array(known - 1)) for name, column in attributes.items.items()}
    target, split = _rows(sequences, prefixes=rows == "prefixes", latest=latest)
    before = Windows(np.repeat(sequences.offsets[:-1], sequences.lengths)[target], target)
    windows = before.last(length)
    draw = np.random.default_rng(seed)
    trained = np.bincount(place[_trained(sequences)], minlength=len(known))
    with Output(output) as out:
        for number, name in enumerate(SPLITS):
            places = np.flatnonzero(split == number)
            places = draw.permutation(places) if name == "train" else places
            for start in range(0, len(places), BLOCK_ROWS):
                chosen = places[start : start + BLOCK_ROWS]
                user, item = sequences.user[sequences.row[target[chosen]]], items[target[chosen]]
                columns = {"user_id": user, "item_id": item, "hist__item_id": _lists(windows.take(chosen), items)}
                if name != "train":
                    columns["seen_ids"] = _lists(before.take(chosen), items)
                columns |= {key: column.take(pa.array(user - 1)) for key, column in attributes.users.items()}
                columns |= {key: column.take(pa.array(item - 1)) for key, column in of_items.items()}
                out.write(name, pa.table(columns))
        ids = np.arange(1, len(known) + 1, dtype=np.int32)
        out.write("items", pa.table({"item_id": ids, "raw_id": known, "weight": trained.astype(np.float32)} | of_items))
        out.info = {
            "dataset": "next_item",
            "protocol": "leave one out: the last item test, the one before valid",
            "source": Path(path).name,
            "train_rows": rows,
            "latest": latest,
            "length": length,
            "min_count": min_count,
            "users": len(sequences.user),
            "interactions": len(items),
            "num_buckets": {"user_id": int(sequences.user.max()) + 1, "item_id": len(known) + 1},
            "history": {name: length_summary(windows.lengths[split == k]) for k, name in enumerate(SPLITS)},
        }
    return {"rows": out.rows, **out.info}


def _read(path: Path) -> tuple[UserItems, Attributes]:
    """Items of each user in order; users and films of MovieLens are numbered from 1."""
    if not path.is_dir() and not zipfile.is_zipfile(path):
        return read_user_items(path), Attributes()
    movies = movielens.read(path)
    order = sort_behaviours(movies.user, movies.timestamp)
    sequences = grouped(movies.user[order].astype(np.int64), movies.movie[order].astype(np.int64))
    return sequences, Attributes(
        users={
            "gender": strings(movies.gender),
            "age": pa.array(movies.age, pa.int32()),
            "occupation": pa.array(movies.occupation, pa.int32()),
        },
        items={"genre": strings(names[0] if names else "" for names in movies.genres)},
    )


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


def _rows(sequences: UserItems, *, prefixes: bool, latest: int) -> tuple[np.ndarray, np.ndarray]:
    """Place of the next item, and number of the split, of every row."""
    starts, ends, counts = sequences.offsets[:-1], sequences.offsets[1:], sequences.lengths
    held = counts >= 3
    split = np.full(len(sequences.items), -1)
    trained = _trained(sequences)
    last = ends - np.where(held, 3, 1)  # of training
    if prefixes:
        after = np.repeat(last, counts) - np.arange(len(split))
        split[trained & (after < latest) if latest else trained] = 0
    else:
        split[last] = 0
    split[ends[held] - 2] = 1
    split[ends[held] - 1] = 2
    split[starts] = -1  # nothing before it
    target = np.flatnonzero(split >= 0)
    return target, split[target]


def _lists(windows: Windows, items: np.ndarray) -> pa.ListArray:
    return lists(windows.offsets(), items[windows.places()])
