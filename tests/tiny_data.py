"""Data for configs/tiny: a few thousand planted rows, written in well under a second.

| column | type | meaning |
|---|---|---|
| user_id, item_id, cate_id | int64 | 0-49, 0-199, 0-9; an item always has the same category |
| city | string, null in 5 % | one of six; in the config hashed |
| tags | list of int64 | 0-3 values of 0-29 |
| price, age | float, age null in 10 % | price of the item, age of the user |
| hist__item_id, hist__cate_id | list of int64 | 0-12 steps, as long as each other; empty for some |
| hist__seconds_ago | list of float | seconds from each step to the row, falling; 5 % of the steps null |
| click | int64 | 0 or 1, planted in user, item, price, category x history |
| buy | int64 | 1 for about half of the clicks |
| grade | int64 | 0, 1 or 2 |
| weight | float | 0.5 or 1 |
| text, audio | lists of vectors of 4 and of 3 | 0-6 and 0-9 steps, each empty for some |
| score | float | of the steps of text and of audio |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tools.tree.order import by_category
from tools.tree.write import CHILDREN, EDGES, NODES, Leaves, write

USERS, ITEMS, CATES = 50, 200, 10
CITIES = ["Oslo", "Lima", "Pune", "Kyoto", "Perth", "Quito"]


def tiny_rows(rows: int, *, seed: int) -> pa.Table:
    """Rows of the planted world; worlds of all seeds are the same."""
    draw = np.random.default_rng(seed)
    (user_bias, item_bias), cate_of, price_of, age_of, taste = _world()
    user, item = draw.integers(0, USERS, rows), draw.integers(0, ITEMS, rows)
    cate = cate_of[item]
    lengths = draw.integers(0, 13, rows)
    history = [draw.integers(0, ITEMS, n) for n in lengths]
    interest = np.array([np.mean(cate_of[h] == c) if len(h) else 0.0 for h, c in zip(history, cate, strict=True)])
    logit = user_bias[user] + item_bias[item] + taste[user, cate] + 4 * interest - 0.3 * price_of[item]
    click = draw.random(rows) < 1 / (1 + np.exp(-logit))
    buy = click & (draw.random(rows) < 1 / (1 + np.exp(-user_bias[user])))
    age = pa.array(age_of[user].astype(np.float32), mask=draw.random(rows) < 0.1)
    city = pa.array([CITIES[u % len(CITIES)] for u in user], mask=draw.random(rows) < 0.05)
    return pa.table(
        {
            "user_id": user,
            "item_id": item,
            "cate_id": cate,
            "city": city,
            "tags": pa.array([draw.integers(0, 30, n) for n in draw.integers(0, 4, rows)], pa.list_(pa.int64())),
            "price": price_of[item].astype(np.float32),
            "age": age,
            "hist__item_id": pa.array(history, pa.list_(pa.int64())),
            "hist__cate_id": pa.array([cate_of[h] for h in history], pa.list_(pa.int64())),
            "hist__seconds_ago": _seconds_ago(lengths, seed),
            "click": click.astype(np.int64),
            "buy": buy.astype(np.int64),
            "grade": np.clip(np.round(logit / 2 + 1), 0, 2).astype(np.int64),
            "weight": np.where(draw.random(rows) < 0.5, 0.5, 1.0).astype(np.float32),
            **_modalities(rows, seed),
        }
    )


def _seconds_ago(lengths: np.ndarray, seed: int) -> pa.Array:
    """Minutes to days before the row, the last step the latest; from a generator of its own."""
    draw = np.random.default_rng([seed, 1])
    ago = [np.cumsum(draw.exponential(3600.0, n))[::-1].round() for n in lengths]
    values = np.concatenate(ago)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32(), mask=draw.random(len(values)) < 0.05))


def _modalities(rows: int, seed: int) -> dict[str, pa.Array | np.ndarray]:
    """Vectors of a text and of a sound, and a score that asks for both; from a generator of its own."""
    draw = np.random.default_rng([seed, 2])
    columns: dict[str, pa.Array | np.ndarray] = {}
    means = []
    for name, most, width in (("text", 6, 4), ("audio", 9, 3)):
        lengths = draw.integers(0, most + 1, rows)
        vectors = draw.normal(0, 1, (int(lengths.sum()), width)).astype(np.float32)
        steps = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
        columns[name] = pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), steps)
        sums = np.bincount(np.repeat(np.arange(rows), lengths), vectors[:, 0], rows)
        means.append(sums / np.maximum(lengths, 1))
    return {**columns, "score": (2 * means[0] - means[1]).astype(np.float32)}


def _world() -> tuple:
    world = np.random.default_rng(7)
    biases = world.normal(0, 1, USERS), world.normal(0, 1, ITEMS)
    cate_of, price_of = world.integers(0, CATES, ITEMS), world.gamma(2.0, 1.0, ITEMS)
    return biases, cate_of, price_of, world.uniform(18, 70, USERS), world.normal(0, 1, (USERS, CATES))


def write_tiny(folder: Path | str, *, train: int = 2000, evaluation: int = 500, seed: int = 0) -> Path:
    """Write <folder>/train/part-{0,1}.parquet, <folder>/eval/part-0.parquet, <folder>/items.parquet and <folder>/tree.

    Args:
        folder: where; configs/tiny reads data/tiny, a test gives its own by `overrides`.
        train: rows for training, in two files of small row groups.
        evaluation: rows for evaluation.
        seed: of the draws.
    """
    folder = Path(folder)
    for part in ("train", "eval"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = tiny_rows(train, seed=seed)
    half = train // 2
    pq.write_table(rows.slice(0, half), folder / "train/part-0.parquet", row_group_size=256)
    pq.write_table(rows.slice(half), folder / "train/part-1.parquet", row_group_size=256)
    pq.write_table(tiny_rows(evaluation, seed=seed + 1), folder / "eval/part-0.parquet", row_group_size=256)
    pq.write_table(tiny_items(), folder / "items.parquet")
    cate = pa.array(_world()[1])
    write(
        Leaves(pa.array(np.arange(ITEMS)), {"cate_id": cate}, {}),
        by_category(np.asarray(cate), seed=0),
        folder / "tree",
    )
    return folder


def tiny_items() -> pa.Table:
    """The item file: id, category and, as weight, how often an item is drawn."""
    cate_of = _world()[1]
    return pa.table({"item_id": np.arange(ITEMS), "cate_id": cate_of, "weight": 1.0 + np.arange(ITEMS) % 7})


def overrides(folder: Path | str) -> list[str]:
    """Arguments of `load_config` (or of --set) that point a config of configs/tiny at `folder`.

    For a sampler's files there is `place_items`.
    """
    folder = Path(folder)
    return [
        f'train_input_path: "{folder}/train/*.parquet"',
        f'eval_input_path: "{folder}/eval/*.parquet"',
        f'model_dir: "{folder}/model"',
    ]


def place_items(config: Any, folder: Path | str) -> None:
    """Point the sampler of a loaded config, if it has one, at the item file or the tree of `folder`."""
    if config.data_config.HasField("negative_sampler"):
        config.data_config.negative_sampler.input_path = str(Path(folder) / "items.parquet")
    if config.data_config.HasField("tdm_sampler"):
        sampler, tree = config.data_config.tdm_sampler, Path(folder) / "tree"
        sampler.item_input_path = str(tree / NODES)
        sampler.edge_input_path, sampler.predict_edge_input_path = str(tree / EDGES), str(tree / CHILDREN)


if __name__ == "__main__":
    print(write_tiny("data/tiny"))
