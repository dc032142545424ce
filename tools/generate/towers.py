"""Generated clicks of users on items by hidden vectors; the best top-K metrics that any model can reach are known.

`python -m tools.generate towers` writes train and valid (a row a click), valid_users and test (a row a user, with lists
of what to find and what was seen) and items, as parquet. User u and item i have hidden vectors, each a part of their
group's (`segment`, `cate_id`) and a part of their own, and items a popularity that falls with their rank:

    P(u clicks i) ~ exp(<u, i> / temperature - popularity * log(rank of i))

Clicks of a user are drawn one after the other without replacement: the first are training, then validation, then test.
So the test clicks of a user are draws among what it has not seen, and no ranking has a greater expected recall at any K
than that by the planted probability (the more probable item is always the likelier one to be among several draws
without replacement). info.json has it, measured on the very rows by the code of --mode top_k.

`cold_items` of the items appear in the test only, `cold_users` of the users have no training rows: their ids say
nothing, their groups do. How far those go is in info.json as well (`groups_alone`: ranking without the own parts).
"""

# U users, I items, D width of the hidden vectors, G groups

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tools.convert.history import lists
from tools.convert.output import Output

BLOCK = 1024
TOP_K = (10, 20, 50, 100)


@dataclass(frozen=True)
class Plan:
    """What to generate."""

    users: int = field(default=20_000, metadata={"help": "how many"})
    items: int = field(default=4_000, metadata={"help": "how many"})
    clicks: int = field(default=25, metadata={"help": "mean number of a user's training clicks; uniform from 1"})
    valid: int = field(default=1, metadata={"help": "validation clicks of a user"})
    test: int = field(default=5, metadata={"help": "test clicks of a user"})
    width: int = field(default=8, metadata={"help": "of the hidden vectors"})
    segments: int = field(default=20, metadata={"help": "groups of users"})
    categories: int = field(default=40, metadata={"help": "groups of items"})
    shared: float = field(default=0.7, metadata={"help": "share of a vector's variance that is its group's"})
    temperature: float = field(default=0.14, metadata={"help": "of the softmax; vectors have length 1 in the mean"})
    popularity: float = field(default=0.8, metadata={"help": "exponent of the items' popularity by rank"})
    cold_items: float = field(default=0.05, metadata={"help": "share of items that come in the test only"})
    cold_users: float = field(default=0.05, metadata={"help": "share of users without training rows"})
    seed: int = field(default=1, metadata={"help": "of everything"})

    def __post_init__(self) -> None:
        if not (0 <= self.cold_items < 1 and 0 <= self.cold_users < 1 and 0 <= self.shared <= 1):
            raise ValueError("cold_items and cold_users are shares below 1, shared one up to 1")
        if not (self.temperature > 0 and self.clicks >= 1 and self.test >= 1 and self.valid >= 0):
            raise ValueError("temperature, clicks and test must be above 0, valid at least 0")
        most = 2 * self.clicks - 1 + self.valid + self.test
        if most > self.items - round(self.cold_items * self.items):
            raise ValueError(f"{most} clicks of a user need more items than {self.items}")


class Truth:
    """The planted model. Users, items and groups have numbers from 0; ids in files are 1 more."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        draw = np.random.default_rng(plan.seed)
        self.segment, self.users, self.users_by_group = self._side(draw, plan.users, plan.segments)
        self.category, self.items, self.items_by_group = self._side(draw, plan.items, plan.categories)
        self.popularity = -plan.popularity * np.log1p(draw.permutation(plan.items)).astype(np.float32)
        self.cold = np.zeros(plan.items, bool)
        self.cold[draw.permutation(plan.items)[: round(plan.cold_items * plan.items)]] = True
        self.trained = draw.integers(1, 2 * plan.clicks, plan.users)  # clicks of each user
        self.trained[draw.permutation(plan.users)[: round(plan.cold_users * plan.users)]] = 0

    def _side(self, draw: np.random.Generator, count: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Group of each, whole vector, and the part of its group."""
        plan = self.plan
        group = draw.integers(0, groups, count)
        centres = draw.normal(0, np.sqrt(plan.shared / plan.width), (groups, plan.width))
        own = draw.normal(0, np.sqrt((1 - plan.shared) / plan.width), (count, plan.width))
        return group, (centres[group] + own).astype(np.float32), centres[group].astype(np.float32)

    def logits(self, users: np.ndarray) -> np.ndarray:
        """Log of the click probabilities but for a constant of each user, [U, I]."""
        return self.users[users] @ self.items.T / np.float32(self.plan.temperature) + self.popularity

    def logits_of_groups(self, users: np.ndarray) -> np.ndarray:
        """The same without the users' and items' own parts, [U, I]."""
        hidden = self.users_by_group[users] @ self.items_by_group.T / np.float32(self.plan.temperature)
        return hidden + self.popularity

    def clicks(self, users: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items of each user, drawn one after the other without replacement.

        The order of logits plus Gumbel noise is that of such draws (Yellott 1977). Cold items are no candidates of the
        first draws; the noise of what was not drawn by then is drawn anew with theirs, as softmax draws have no memory.

        Returns:
            items of training and validation, [U, most of them], -1 behind the last; how many of them are training;
            items of the test, [U, test]
        """
        plan, logits = self.plan, self.logits(users)
        first = logits + draw.gumbel(size=logits.shape).astype(np.float32)
        first[:, self.cold] = -np.inf
        most = 2 * plan.clicks - 1 + plan.valid
        trained = self.trained[users]
        before = _best(first, most)
        count = np.where(trained > 0, trained + plan.valid, 0)
        before = np.where(np.arange(most) < count[:, None], before, -1)
        later = logits + draw.gumbel(size=logits.shape).astype(np.float32)
        row, place = np.nonzero(before >= 0)
        later[row, before[row, place]] = -np.inf
        return before, trained, _best(later, plan.test)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` greatest of each row, the greatest first."""
    if count < scores.shape[1]:
        columns = np.argpartition(scores, -count, axis=1)[:, -count:]
    else:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, 1), axis=1)
    return np.take_along_axis(columns, order, 1)


@dataclass(frozen=True)
class Clicks:
    """All clicks, pairs in the order of users."""

    train: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def drawn(truth: Truth) -> Clicks:
    """Every user's clicks."""
    plan = truth.plan
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "valid": [], "test": []}
    for users in _blocks(plan.users):
        before, trained, test = truth.clicks(users, np.random.default_rng([plan.seed, int(users[0])]))
        place = np.arange(before.shape[1])
        inside = place < trained[:, None]
        for name, mask in (("train", inside), ("valid", ~inside & (before >= 0))):
            row, column = np.nonzero(mask)
            parts[name].append((users[row], before[row, column]))
        parts["test"].append((np.repeat(users, plan.test), test.ravel()))
    joined = {
        name: (np.concatenate([u for u, _ in found]), np.concatenate([i for _, i in found]))
        for name, found in parts.items()
    }
    return Clicks(**joined)


def generate(plan: Plan, output: str) -> dict[str, Any]:
    """Write the splits; returns what info.json holds: the best metrics, and those of parts of the truth."""
    truth = Truth(plan)
    clicks = drawn(truth)
    weights = np.bincount(clicks.train[1], minlength=plan.items)
    order = np.random.default_rng([plan.seed, 1 << 32]).permutation(len(clicks.train[0]))
    seen = tuple(np.concatenate(pair) for pair in zip(clicks.train, clicks.valid, strict=True))
    with Output(output) as out:
        out.write("train", _pairs(truth, *(part[order] for part in clicks.train)))
        out.write("valid", _pairs(truth, *clicks.valid))
        out.write("valid_users", _users(truth, clicks.valid, clicks.train))
        out.write("test", _users(truth, clicks.test, seen))
        out.write(
            "items",
            pa.table(
                {
                    "item_id": np.arange(1, plan.items + 1, dtype=np.int32),
                    "cate_id": (truth.category + 1).astype(np.int32),
                    "weight": weights.astype(np.float32),
                }
            ),
        )
        rankings = {
            "best_possible": truth.logits,
            "groups_alone": truth.logits_of_groups,
            "popularity": lambda users: np.broadcast_to(weights.astype(np.float32), (len(users), plan.items)),
        }
        out.info = {
            "dataset": "planted_towers",
            "plan": asdict(plan),
            "num_buckets": {
                "user_id": plan.users + 1,
                "item_id": plan.items + 1,
                "segment": plan.segments + 1,
                "cate_id": plan.categories + 1,
            },
            "test": {name: ranked(score, truth, clicks.test, seen, weights) for name, score in rankings.items()},
        }
    return {"rows": out.rows, **out.info}


def ranked(
    score: Callable[[np.ndarray], np.ndarray],
    truth: Truth,
    wanted: tuple[np.ndarray, np.ndarray],
    seen: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray,
) -> dict[str, Any]:
    """Metrics of a ranking, as `--mode top_k` writes them: of all users, and by groups of items and users.

    Args:
        score: of users, [U, I].
        truth: the planted model.
        wanted: users and items to be found.
        seen: users and items that are left out.
        weights: of the items, for the groups.
    """
    import torch

    from rec.data.catalogue import Pairs
    from rec.jobs.top_k import as_json
    from rec.metrics.catalogue import CatalogueMetrics

    def of(users: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> Pairs:
        chosen = (pairs[0] >= users[0]) & (pairs[0] <= users[-1])
        return Pairs(pairs[0][chosen] - users[0], pairs[1][chosen])

    metrics = CatalogueMetrics(items=truth.plan.items, top_k=TOP_K, weights=weights.astype(np.float64))
    for users in _blocks(truth.plan.users):
        scores = torch.from_numpy(np.array(score(users), np.float32))
        metrics.update([(0, scores)], users=len(users), relevant=of(users, wanted), seen=of(users, seen))
    return as_json(metrics.compute(), {})


def _blocks(users: int) -> Iterator[np.ndarray]:
    """Numbers of users, some at a time: what needs a score of every item for each."""
    for first in range(0, users, BLOCK):
        yield np.arange(first, min(first + BLOCK, users))


def _pairs(truth: Truth, users: np.ndarray, items: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "user_id": (users + 1).astype(np.int32),
            "segment": (truth.segment[users] + 1).astype(np.int32),
            "item_id": (items + 1).astype(np.int32),
            "cate_id": (truth.category[items] + 1).astype(np.int32),
        }
    )


def _users(truth: Truth, wanted: tuple[np.ndarray, np.ndarray], seen: tuple[np.ndarray, np.ndarray]) -> pa.Table:
    users = np.unique(wanted[0])
    return pa.table(
        {
            "user_id": (users + 1).astype(np.int32),
            "segment": (truth.segment[users] + 1).astype(np.int32),
            "item_ids": _lists(users, wanted),
            "seen_ids": _lists(users, seen),
        }
    )


def _lists(users: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> pa.Array:
    """Ids of the items of each of `users`, in the order of the pairs."""
    order = np.argsort(pairs[0], kind="stable")
    owner, items = pairs[0][order], pairs[1][order]
    begin, end = (np.searchsorted(owner, users, side=side) for side in ("left", "right"))
    assert (end - begin).sum() == len(owner), "every pair is of one of the users"
    return lists(np.concatenate([[0], np.cumsum(end - begin)]), (items + 1).astype(np.int32))
