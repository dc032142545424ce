"""Gowalla in the split of LightGCN: check-ins of users at places, without order, for retrieval.

train.txt and test.txt have a line "user item item ..." for each user. The published protocol ranks all items that
the user has not in training and knows no validation; `valid_share` holds out a share of training for tuning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.history import Windows, lists
from tools.convert.output import Output
from tools.convert.user_items import UserItems, grouped, read_user_items

BLOCK_ROWS = 65_536
HISTORIES = ("half", "same", "others")


def convert(
    path: str | Path,
    output: str | Path,
    *,
    length: int = 50,
    histories: str = "half",
    valid_share: float = 0.0,
    seed: int = 2024,
) -> dict:
    """Write train (a row a check-in), test (a row a user) and items; returns the info.

    Ids are the file's plus 1, so that 0 is free.

    Args:
        path: folder with train.txt and test.txt, plain or .gz.
        output: folder of the splits.
        length: longest history.
        histories: of training rows. "half": half of the user's training items (rounded up), whether the row's own is
            among them or not. "same": those of the user's test row, the row's own mostly among them, as BARS has it.
            "others": drawn for each row, never the row's own.
        valid_share: of each user's training items (rounded down), moved into a split `valid` of the test's form.
        seed: of the order of rows and histories, and of what is held out.
    """
    folder, draw = Path(path), np.random.default_rng(seed)
    train, test = (_shifted(read_user_items(_file(folder, name))) for name in ("train.txt", "test.txt"))
    train = _mixed(train, draw)
    held = {"test": test}
    if valid_share:
        place = np.arange(len(train.items)) - np.repeat(train.offsets[:-1], train.lengths)
        chosen = place < np.repeat((train.lengths * valid_share).astype(np.int64), train.lengths)
        held["valid"] = _part(train, chosen)
        train = _part(train, ~chosen)
    size = int(max(train.items.max(), *(part.items.max() for part in held.values()))) + 1
    with Output(output) as out:
        order = draw.permutation(len(train.items))
        for start in range(0, len(order), BLOCK_ROWS):
            out.write("train", _pairs(train, order[start : start + BLOCK_ROWS], length, histories, draw))
        for split, part in held.items():
            out.write(split, _users(train, part, length))
        known, counts = np.arange(1, size), np.bincount(train.items, minlength=size)
        out.write("items", pa.table({"item_id": known.astype(np.int32), "weight": counts[1:].astype(np.float32)}))
        out.info = {
            "dataset": "gowalla",
            "protocol": "LightGCN's split",
            "length": length,
            "histories": histories,
            "valid_share": valid_share,
            "seed": seed,
            "users": len(train.user),
            "num_buckets": {"user_id": int(max(train.user.max(), test.user.max())) + 1, "item_id": size},
            "held_out": {split: len(part.items) for split, part in held.items()},
        }
    return {"rows": out.rows, **out.info}


def _file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.exists():
            return file
    raise DataError(f"has no {name} or {name}.gz; give the folder of LightGCN's Gowalla", file=str(folder))


def _shifted(data: UserItems) -> UserItems:
    return UserItems(data.user + 1, data.offsets, data.items + 1)


def _mixed(data: UserItems, draw: np.random.Generator) -> UserItems:
    """The items of each user in random order: the file's order must not mean anything."""
    order = np.lexsort((draw.random(len(data.items)), data.row))
    return UserItems(data.user, data.offsets, data.items[order])


def _part(data: UserItems, chosen: np.ndarray) -> UserItems:
    return grouped(data.user[data.row[chosen]], data.items[chosen])


def _pairs(train: UserItems, places: np.ndarray, length: int, histories: str, draw: np.random.Generator) -> pa.Table:
    """A row for each of some check-ins, with a part of the circle of its user's items as the history."""
    row = train.row[places]
    start, count = train.offsets[row], train.lengths[row]
    # From which place on, and how many.
    first, steps = {
        "others": (places - start + 1, count - 1),
        "half": (draw.integers(count), (count + 1) // 2),
        "same": (np.zeros_like(places), count),
    }[histories]
    steps = np.minimum(steps, length)
    offsets = np.concatenate([[0], np.cumsum(steps)])
    after = np.arange(offsets[-1]) - np.repeat(offsets[:-1], steps)
    circle = (np.repeat(first, steps) + after) % np.repeat(count, steps)
    return pa.table(
        {
            "user_id": train.user[row].astype(np.int32),
            "item_id": train.items[places].astype(np.int32),
            "hist__item_id": lists(offsets, train.items[np.repeat(start, steps) + circle].astype(np.int32)),
        }
    )


def _users(train: UserItems, held: UserItems, length: int) -> pa.Table:
    """A row for each user with something held out: what it is, and what must not be recommended."""
    place = {int(user): number for number, user in enumerate(train.user)}
    rows = np.array([place.get(int(user), -1) for user in held.user])
    starts = np.where(rows >= 0, train.offsets[rows], 0)
    counts = np.where(rows >= 0, train.lengths[rows], 0)
    seen, history = Windows(starts, starts + counts), Windows(starts, starts + np.minimum(counts, length))
    return pa.table(
        {
            "user_id": held.user.astype(np.int32),
            "item_ids": lists(held.offsets, held.items.astype(np.int32)),
            "seen_ids": lists(seen.offsets(), train.items[seen.places()].astype(np.int32)),
            "hist__item_id": lists(history.offsets(), train.items[history.places()].astype(np.int32)),
        }
    )
