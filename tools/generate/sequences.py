"""Generated clicks with a history in which order matters; the best AUC that any model can reach is known.

`python -m tools.generate sequences` writes train, valid and test as parquet. A row is a user at a moment with a
hidden interest z, one of C categories. Behind its history of steps, oldest first, lies a Markov chain:

* before each step and before the target the interest drifts: with probability `drift` it is drawn anew;
* a step is with probability `switch` the item "done": the interest is satisfied and becomes its partner's (categories
  are pairs), so what came before now speaks for the other one;
* else a click, in the category z, or with probability `noise` in any.

    logit = bias + item + context + taste * mean(v of the clicks) v_target + match [z = category of the target]

The taste is a share of the history whatever its order: mean pooling can read it. The interest is not: it wants the
latest steps and what "done" stood behind. A model sees no z: the truth of a row is P(label | history, target),

    p sigmoid(logit with match) + (1 - p) sigmoid(logit without),   p = P(z = category of the target | history),

with p from the forward algorithm of the chain, exact. `--shuffled` writes <split>_shuffled beside each split: the
same rows and labels with the steps of each history in random order.
"""

# B rows, L steps, C categories

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tools.convert.history import lists
from tools.convert.output import SPLITS, Output
from tools.generate.draws import sigmoid, zipf_ids
from tools.scores import auc, scores


@dataclass(frozen=True)
class Plan:
    """What to generate."""

    train: int = field(default=300_000, metadata={"help": "rows"})
    valid: int = field(default=30_000, metadata={"help": "rows"})
    test: int = field(default=30_000, metadata={"help": "rows"})
    length: int = field(default=20, metadata={"help": "longest history; lengths are uniform from 0"})
    categories: int = field(default=8, metadata={"help": "even; 2i and 2i+1 are partners"})
    items: int = field(default=20, metadata={"help": "of a category, even"})
    zipf: float = field(default=1.1, metadata={"help": "exponent of the items' popularity"})
    contexts: tuple[int, ...] = field(default=(24, 10), metadata={"help": "ids of each context column"})
    drift: float = field(default=0.1, metadata={"help": "probability that the interest is drawn anew, per step"})
    switch: float = field(default=0.1, metadata={"help": 'probability that a step is "done"'})
    noise: float = field(default=0.1, metadata={"help": "probability that a click is of any category"})
    match: float = field(default=4.0, metadata={"help": "logit of a target in the interest's category"})
    taste: float = field(default=0.5, metadata={"help": "logit of a target of the history's taste"})
    spread: float = field(default=0.3, metadata={"help": "standard deviation of the weights of items and contexts"})
    bias: float = field(default=-1.5, metadata={"help": "of the logit"})
    seed: int = field(default=1, metadata={"help": "of everything"})
    shuffled: bool = field(default=False, metadata={"help": "also write <split>_shuffled"})

    def __post_init__(self) -> None:
        if self.categories % 2 or self.items % 2:
            raise ValueError(f"categories ({self.categories}) and items ({self.items}) must be even")


class Truth:
    """The planted model. Ids in files begin with 1: item i of category c is c * items + i + 1, "done" the last."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        draw = np.random.default_rng(plan.seed)
        self.item_weights = draw.normal(0, plan.spread, plan.categories * plan.items)
        self.context_weights = [draw.normal(0, plan.spread, size) for size in plan.contexts]

    @property
    def done(self) -> int:
        """Number (from 0) of the item that switches the interest."""
        return self.plan.categories * self.plan.items

    def taste_of(self, items: np.ndarray) -> np.ndarray:
        """Of items, v: 1 for even numbers, -1 for odd ones, 0 for "done"."""
        return np.where(items == self.done, 0, 1 - 2 * (items % 2))

    def category_of(self, items: np.ndarray) -> np.ndarray:
        """Category of items; that of "done" is one of its own."""
        return items // self.plan.items

    def histories(self, draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw histories and the interest after them.

        Returns:
            items [B, L], of which the last of each row count; lengths [B]; interest at the target's moment [B]
        """
        plan = self.plan
        lengths = draw.integers(0, plan.length + 1, count)
        inclination = draw.random(count)  # share of even items in the clicks of a row
        interest = draw.integers(0, plan.categories, count)
        steps = np.empty((count, plan.length), np.int64)
        for step in range(plan.length):
            interest = self._drift(draw, interest)
            wild = draw.random(count) < plan.noise
            category = np.where(wild, draw.integers(0, plan.categories, count), interest)
            done = draw.random(count) < plan.switch
            steps[:, step] = np.where(done, self.done, self._items(draw, category, draw.random(count) < inclination))
            interest = np.where(done, interest ^ 1, interest)
        return steps, lengths, self._drift(draw, interest)

    def _drift(self, draw: np.random.Generator, interest: np.ndarray) -> np.ndarray:
        anew = draw.random(len(interest)) < self.plan.drift
        return np.where(anew, draw.integers(0, self.plan.categories, len(interest)), interest)

    def _items(self, draw: np.random.Generator, category: np.ndarray, even: np.ndarray) -> np.ndarray:
        plan = self.plan
        rank = zipf_ids(draw, size=len(category), vocabulary=plan.items // 2, exponent=plan.zipf)
        return category * plan.items + 2 * rank + ~even

    def interest_after(self, items_BL: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """P(z | history) at the target's moment, by the forward algorithm: float64 [B, C].

        A history shorter than L starts from the chain's stationary distribution, which is uniform.
        """
        plan = self.plan
        belief_BC = np.full((len(lengths), plan.categories), 1 / plan.categories)
        partner = np.arange(plan.categories) ^ 1
        for step in range(items_BL.shape[1]):
            present = np.flatnonzero(items_BL.shape[1] - step <= lengths)
            item = items_BL[present, step]
            belief = (1 - plan.drift) * belief_BC[present] + plan.drift / plan.categories
            click = item != self.done
            seen = np.full((len(present), plan.categories), plan.noise / plan.categories)
            seen[np.flatnonzero(click), self.category_of(item[click])] += 1 - plan.noise
            belief = np.where(click[:, None], belief * seen, belief[:, partner])
            belief_BC[present] = belief / belief.sum(1, keepdims=True)
        return (1 - plan.drift) * belief_BC + plan.drift / plan.categories

    def targets(self, draw: np.random.Generator, items_BL: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Items to be judged: half in the category of one of the steps, a quarter in its partner's, a quarter in any.

        They depend on nothing hidden, so a target says nothing about the interest that the history does not.
        """
        count, length = items_BL.shape
        place = length - 1 - (draw.random(count) * lengths).astype(np.int64)
        category = self.category_of(items_BL[np.arange(count), np.maximum(place, 0)])
        kind = draw.random(count)
        known = (lengths > 0) & (category < self.plan.categories) & (kind >= 0.25)
        category = np.where(known, category ^ (kind < 0.5), draw.integers(0, self.plan.categories, count))
        return self._items(draw, category, np.less(draw.random(count), 0.5))

    def rows(self, count: int, *, seed: int) -> tuple[pa.Table, dict[str, np.ndarray]]:
        """Rows, and of each the planted probability and what parts of the truth say alone.

        Returns:
            the table; "probs": P(label | all that a model sees); the logits "without_interest" and
            "without_history"
        """
        plan, draw = self.plan, np.random.default_rng(seed)
        items_BL, lengths, interest = self.histories(draw, count)
        target = self.targets(draw, items_BL, lengths)
        contexts = [draw.integers(0, size, count) for size in plan.contexts]
        static = plan.bias + self.item_weights[target]
        for weights, values in zip(self.context_weights, contexts, strict=True):
            static = static + weights[values]
        inside_BL = np.arange(plan.length) >= plan.length - lengths[:, None]
        taste = np.where(inside_BL, self.taste_of(items_BL), 0).sum(1)
        clicks = (inside_BL & (items_BL != self.done)).sum(1)
        order_free = static + plan.taste * self.taste_of(target) * taste / np.maximum(clicks, 1)
        category = self.category_of(target)
        share = self.interest_after(items_BL, lengths)[np.arange(count), category]
        probs = share * sigmoid(order_free + plan.match) + (1 - share) * sigmoid(order_free)
        label = draw.random(count) < sigmoid(order_free + plan.match * (interest == category))
        columns: dict[str, Any] = {
            "label": label.astype(np.int32),
            "item_id": (target + 1).astype(np.int32),
            "cate_id": (category + 1).astype(np.int32),
        }
        columns |= {f"context_{place}": values.astype(np.int32) for place, values in enumerate(contexts)}
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        steps = items_BL[inside_BL]
        columns["hist__item_id"] = lists(offsets, (steps + 1).astype(np.int32))
        columns["hist__cate_id"] = lists(offsets, (self.category_of(steps) + 1).astype(np.int32))
        ago = np.repeat(offsets[1:], lengths) - np.arange(len(steps))
        columns["hist__steps_ago"] = lists(offsets, ago.astype(np.int32))
        return pa.table(columns), {"probs": probs, "without_interest": order_free, "without_history": static}


def shuffled(table: pa.Table, *, seed: int) -> pa.Table:
    """The steps of each history in random order; `hist__steps_ago` stays, as places do."""
    offsets = table["hist__item_id"].combine_chunks().offsets.to_numpy()
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.random.default_rng(seed).random(len(row)), row))
    for name in ("hist__item_id", "hist__cate_id"):
        values = table[name].combine_chunks().flatten().to_numpy()[order]
        table = table.set_column(table.column_names.index(name), name, lists(offsets, values))
    return table


def generate(plan: Plan, output: str) -> dict[str, Any]:
    """Write the splits; returns what info.json holds: the Bayes figures, and the AUC of parts of the truth."""
    truth = Truth(plan)
    with Output(output, row_group_rows=16_384) as out:
        bayes: dict[str, dict[str, float]] = {}
        for number, split in enumerate(SPLITS):
            seed = plan.seed * 1000 + number
            table, known = truth.rows(getattr(plan, split), seed=seed)
            out.write(split, table)
            if plan.shuffled:
                out.write(f"{split}_shuffled", shuffled(table, seed=seed))
            labels = table["label"].to_numpy()
            parts = {f"auc_{name}": auc(labels, known[name]) for name in ("without_interest", "without_history")}
            bayes[split] = scores(labels, known["probs"]) | parts
        out.info = {"dataset": "planted_sequences", "plan": asdict(plan), "bayes": bayes}
    return {"rows": out.rows, **out.info}
