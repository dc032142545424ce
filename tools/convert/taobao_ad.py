"""Taobao Ad Display/Click (Alibaba, 2017) to parquet: impressions of ads with the user's behaviours before each.

Reads the raw raw_sample.csv, ad_feature.csv, user_profile.csv and behavior_log.csv (700 M rows). The protocol is that
of TaobaoAd_x1 (BARS): the last day (2017-05-13) is the test; impressions whose user or ad has no profile are left
out; categories seen fewer than `min_count` times before the last day become id 0; histories have 50 steps. Ours are
joined as of the impression's moment: the steps strictly before it, the most recent last. The day before the test is
validation here (BARS trains on it and chooses the epoch on the test).

Out of core: impressions and log are shared out to buckets by user, each bucket is sorted and joined in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.buckets import Buckets
from tools.convert.categories import Vocabulary
from tools.convert.history import length_summary, lists, sort_behaviours, windows_before
from tools.convert.integers import Column, Wrong, find, read_integers
from tools.convert.output import SPLITS, Output

FILES = ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")
TAGS = ("pv", "cart", "fav", "buy")  # ids 1-4 of hist__btag
BEIJING = 8 * 3600  # seconds from UTC; the time stamps are UTC
DAY = 24 * 3600
SLICE_ROWS = 32_768

USER = Column("user", high=2**31 - 2)
TIME = Column("time_stamp", low=1)
AD = (
    Column("adgroup_id"),
    *(Column(name, optional=True) for name in ("cate_id", "campaign_id", "customer", "brand")),
    Column("price", optional=True, decimal=True, high=10**9),
)
# Largest value of each. In the files 1 is one more, so that 0 is free for a blank.
LEVELS = {
    "cms_segid": 96,
    "cms_group_id": 12,
    "final_gender_code": 2,
    "age_level": 6,
    "pvalue_level": 3,
    "shopping_level": 3,
    "occupation": 1,
    "new_user_class_level": 4,
}
PROFILE = (Column("userid"), *(Column(name, optional=True, high=high) for name, high in LEVELS.items()))
# The two scenarios are "430548_1007" and "430539_1007".
PLACES = ("430539_1007", "430548_1007")

IMPRESSION = np.dtype([("user", "i4"), ("time", "i4"), ("ad", "i4"), ("pid", "i1"), ("clk", "i1")])
VOCABULARIES = ("user_id", "adgroup_id", "cate_id", "campaign_id", "customer", "brand")
BEHAVIOUR = np.dtype([("user", "i4"), ("time", "i4"), ("cate", "i4"), ("brand", "i4"), ("tag", "i1")])


class Table:
    """A file with one row per key, in memory; of a key that comes twice the first row counts."""

    def __init__(self, path: Path, columns: Sequence[Column], wrong: Wrong) -> None:
        parts = list(read_integers(path, columns, wrong))
        if not parts:
            raise DataError("has no rows", file=str(path))
        names = [column.name for column in columns]
        self.keys, first = np.unique(np.concatenate([part[names[0]] for part in parts]), return_index=True)
        self.columns = {name: np.concatenate([part[name] for part in parts])[first] for name in names[1:]}

    def places(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each key in the columns, and whether there is one."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return place, self.keys[place] == keys


@dataclass(frozen=True)
class World:
    """What the rows refer to.

    Attributes:
        ads, users: the profiles.
        ids: vocabularies of the columns with many values; category and brand share theirs with the history.
    """

    ads: Table
    users: Table
    ids: dict[str, Vocabulary]


def convert(
    path: str | Path,
    output: str | Path,
    *,
    tags: Sequence[str] = TAGS,
    length: int = 50,
    min_count: int = 10,
    buckets: int = 64,
    max_wrong: float = 0.01,
    seed: int = 2018,
) -> dict:
    """Write the splits; returns the info.

    Args:
        path: folder of the four files, plain or compressed.
        output: folder of the splits; the buckets lie beside it while it works, 17 bytes a row of the log.
        tags: behaviours that become history.
        length: longest history.
        min_count: values seen less often before the last day become id 0.
        buckets: parts of the join; more need less memory.
        max_wrong: largest share of wrong rows of a file.
        seed: of the order of the training rows.
    """
    files, wrong = find(Path(path), FILES), Wrong(share=max_wrong)
    world = World(
        Table(files["ad_feature.csv"], AD, wrong),
        Table(files["user_profile.csv"], PROFILE, wrong),
        {name: Vocabulary(min_count=min_count) for name in VOCABULARIES},
    )
    target = Path(output).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside,
        Output(target) as out,
    ):
        shown = Buckets(Path(aside) / "impressions", count=buckets, dtype=IMPRESSION)
        seen = Buckets(Path(aside) / "behaviours", count=buckets, dtype=BEHAVIOUR)
        dropped = _share_impressions(files["raw_sample.csv"], shown, world, wrong)
        days = sorted({int(day) for number in range(buckets) for day in np.unique(day_of(shown.read(number)["time"]))})
        if len(days) < 2:
            raise DataError("has impressions of one day only; the last day is the test", file=str(path))
        _share_behaviours(files["behavior_log.csv"], seen, world, wrong, tags=tags, before=days[-1])
        for number in range(buckets):
            _count(shown.read(number), world, before=days[-1])
        draw = np.random.default_rng(seed)
        lengths: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        for number in range(buckets):
            bucket = Bucket(shown.read(number), seen.read(number), world, length=length)
            for split, rows in bucket.splits(days, draw).items():
                lengths[split].append(bucket.windows.lengths[rows].astype(np.int32))
                for start in range(0, len(rows), SLICE_ROWS):
                    out.write(split, bucket.table(rows[start : start + SLICE_ROWS]))
        out.info = {
            "dataset": "taobao_ad",
            "protocol": "last day test, the day before valid",
            "days": [str(np.datetime64(day, "D")) for day in days],
            "tags": list(tags),
            "length": length,
            "min_count": min_count,
            "impressions_without_profile": dropped,
            "behaviours": seen.rows,
            "ids": {name: vocabulary.size for name, vocabulary in world.ids.items()},
            "history": {split: length_summary(np.concatenate(parts)) for split, parts in lengths.items() if parts},
            "wrong": wrong.info(),
        }
    return {"rows": out.rows, **out.info}


def day_of(time: np.ndarray) -> np.ndarray:
    """Days since 1970 by the calendar of Beijing."""
    return (time.astype(np.int64) + BEIJING) // DAY


def _share_impressions(path: Path, buckets: Buckets, world: World, wrong: Wrong) -> int:
    """Share out the impressions; returns how many had no profile of user or ad."""
    dropped = 0
    columns = (USER, TIME, Column("adgroup_id"), Column("pid", words=PLACES), Column("clk", high=1))
    for rows in read_integers(path, columns, wrong):
        ad, known = world.ads.places(rows["adgroup_id"])
        known &= world.users.places(rows["user"])[1]
        dropped += int((~known).sum())
        buckets.write(
            rows["user"][known],
            user=rows["user"][known],
            time=rows["time_stamp"][known],
            ad=ad[known],
            pid=rows["pid"][known],
            clk=rows["clk"][known],
        )
    return dropped


def _share_behaviours(
    path: Path, buckets: Buckets, world: World, wrong: Wrong, *, tags: Sequence[str], before: int
) -> None:
    """Share out the behaviours of the chosen tags; counts categories and brands before a day."""
    columns = (USER, TIME, Column("btag", words=TAGS), *(Column(name, optional=True) for name in ("cate", "brand")))
    chosen = np.array([TAGS.index(tag) + 1 for tag in tags])
    for rows in read_integers(path, columns, wrong):
        if len(chosen) < len(TAGS):
            rows = {name: values[np.isin(rows["btag"], chosen)] for name, values in rows.items()}
        past = day_of(rows["time_stamp"]) < before
        world.ids["cate_id"].add(rows["cate"][past])
        world.ids["brand"].add(rows["brand"][past])
        buckets.write(
            rows["user"],
            user=rows["user"],
            time=rows["time_stamp"],
            cate=rows["cate"],
            brand=rows["brand"],
            tag=rows["btag"],
        )


def _count(shown: np.ndarray, world: World, *, before: int) -> None:
    """Count the values of the impressions before a day."""
    past = shown[day_of(shown["time"]) < before]
    world.ids["user_id"].add(past["user"])
    world.ids["adgroup_id"].add(world.ads.keys[past["ad"]])
    for name in ("cate_id", "campaign_id", "customer", "brand"):
        world.ids[name].add(world.ads.columns[name][past["ad"]])


class Bucket:
    """Impressions of some users joined with their behaviours."""

    def __init__(self, shown: np.ndarray, seen: np.ndarray, world: World, *, length: int) -> None:
        self.shown, self.world = shown, world
        steps = seen[sort_behaviours(seen["user"], seen["time"])]
        self.windows = windows_before(
            steps["user"], steps["time"], row_user=shown["user"], row_time=shown["time"], length=length
        )
        self.step_time = steps["time"]
        self.steps = {
            "cate_id": world.ids["cate_id"].encode(steps["cate"]),
            "brand": world.ids["brand"].encode(steps["brand"]),
            "btag": steps["tag"].astype(np.int32),
        }

    def splits(self, days: Sequence[int], draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Rows of each split: training rows in random order, the others in the order of time."""
        day = day_of(self.shown["time"])
        ends = {"train": day < days[-2], "valid": day == days[-2], "test": day == days[-1]}
        rows = {split: np.flatnonzero(chosen) for split, chosen in ends.items()}
        return {
            split: draw.permutation(places)
            if split == "train"
            else places[np.argsort(self.shown["time"][places], kind="stable")]
            for split, places in rows.items()
        }

    def table(self, rows: np.ndarray) -> pa.Table:
        """Some rows with all columns."""
        shown, ads, users, ids = self.shown[rows], self.world.ads, self.world.users, self.world.ids
        user, _ = users.places(shown["user"])
        local = shown["time"].astype(np.int64) + BEIJING
        columns: dict[str, np.ndarray | pa.Array] = {
            "label": shown["clk"].astype(np.int32),
            "user": shown["user"],
            "user_id": ids["user_id"].encode(shown["user"]),
        }
        columns |= {name: (users.columns[name][user] + 1).astype(np.int32) for name in LEVELS}
        columns["adgroup_id"] = ids["adgroup_id"].encode(ads.keys[shown["ad"]])
        for name in ("cate_id", "campaign_id", "customer", "brand"):
            columns[name] = ids[name].encode(ads.columns[name][shown["ad"]])
        price = ads.columns["price"][shown["ad"]].astype(np.float32)
        columns["price"] = pa.array(price, mask=np.isnan(price))
        columns |= {
            "pid": shown["pid"].astype(np.int32),
            "hour": (local % DAY // 3600 + 1).astype(np.int32),
            "weekday": ((local // DAY + 3) % 7 + 1).astype(np.int32),  # 1 January 1970 was a Thursday
            "timestamp": shown["time"].astype(np.int64),
        }
        windows = self.windows.take(rows)
        places, offsets = windows.places(), windows.offsets()
        columns |= {f"hist__{name}": lists(offsets, values[places]) for name, values in self.steps.items()}
        ago = np.repeat(shown["time"], windows.lengths) - self.step_time[places]
        columns["hist__seconds_ago"] = lists(offsets, ago)
        return pa.table(columns)
