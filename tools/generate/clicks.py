"""Generated click data with a planted truth: the best AUC and logloss that any model can reach are known.

`python -m tools.generate clicks` writes train, valid and test as parquet, and info.json with the Bayes figures of
each split. The logit of a row is a sum of

* dense columns dense_<i>, log-normal, with a linear weight;
* id columns cat_<i>, zipf-distributed, with a weight per id and planted pairs <u_a, v_b> of neighbouring columns;
* with a history: the interest <z_target, mean of z over the history's last items>, items from the target's catalogue.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tools.convert.output import SPLITS, Output
from tools.generate.draws import sigmoid, zipf_ids
from tools.scores import scores


@dataclass(frozen=True)
class Plan:
    """What to generate."""

    train: int = field(default=200_000, metadata={"help": "rows"})
    valid: int = field(default=20_000, metadata={"help": "rows"})
    test: int = field(default=20_000, metadata={"help": "rows"})
    dense: int = field(default=4, metadata={"help": "dense columns"})
    vocabularies: tuple[int, ...] = field(default=(400, 200, 100, 50, 20, 10), metadata={"help": "ids of each column"})
    zipf: float = field(default=1.1, metadata={"help": "exponent of the ids' popularity"})
    pairs: int = field(default=4, metadata={"help": "planted pairs of id columns"})
    rank: int = field(default=4, metadata={"help": "width of the planted vectors"})
    history: int = field(default=0, metadata={"help": "longest history, 0 for none"})
    items: int = field(default=500, metadata={"help": "catalogue of the history and its target"})
    bias: float = field(default=-1.0, metadata={"help": "of the logit"})
    seed: int = field(default=1, metadata={"help": "of everything"})

    def __post_init__(self) -> None:
        if self.pairs >= len(self.vocabularies) > 0:
            raise ValueError(f"{self.pairs} pairs of neighbours need {self.pairs + 1} id columns")


class Truth:
    """The planted model."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        generator = np.random.default_rng(plan.seed)
        sizes = plan.vocabularies
        self.dense = generator.normal(0, 0.4, plan.dense)
        self.weights = [generator.normal(0, 0.5, size) for size in sizes]
        scale = plan.rank**-0.25  # <u, v> then has unit variance
        self.vectors = [generator.normal(0, scale, (size, plan.rank)) for size in sizes]
        self.items = generator.normal(0, 1, (plan.items, plan.rank))

    def rows(self, count: int, *, seed: int) -> tuple[pa.Table, np.ndarray]:
        """Rows and the logit of each.

        Returns:
            the table; float64 [count]
        """
        plan, generator = self.plan, np.random.default_rng(seed)
        columns: dict[str, Any] = {}
        logits = np.full(count, plan.bias)
        for number in range(plan.dense):
            values = np.log1p(np.exp(generator.normal(1.0, 1.2, count))).astype(np.float32)
            columns[f"dense_{number}"] = values
            logits += self.dense[number] * (values - 1.5)
        ids = [zipf_ids(generator, size=count, vocabulary=size, exponent=plan.zipf) for size in plan.vocabularies]
        for number, values in enumerate(ids):
            columns[f"cat_{number}"] = values
            logits += self.weights[number][values]
        for left in range(min(plan.pairs, len(ids) - 1)):
            logits += (self.vectors[left][ids[left]] * self.vectors[left + 1][ids[left + 1]]).sum(1)
        if plan.history:
            target, lengths, history = self._history(generator, count)
            columns["item"] = target
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            columns["history"] = pa.ListArray.from_arrays(offsets, pa.array(history))
            logits += self._interest(target, lengths, history)
        columns["label"] = (generator.random(count) < sigmoid(logits)).astype(np.int32)
        return pa.table(columns), logits

    def _history(self, generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        plan = self.plan
        target = zipf_ids(generator, size=count, vocabulary=plan.items, exponent=plan.zipf)
        lengths = generator.integers(0, plan.history + 1, count)
        history = zipf_ids(generator, size=int(lengths.sum()), vocabulary=plan.items, exponent=plan.zipf)
        return target, lengths, history

    def _interest(self, target: np.ndarray, lengths: np.ndarray, history: np.ndarray) -> np.ndarray:
        """<z_target, sum of z over the history> / sqrt(length): the same spread at every length, 0 without history."""
        rows = np.repeat(np.arange(len(target)), lengths)
        sums = np.zeros((len(target), self.plan.rank))
        np.add.at(sums, rows, self.items[history])
        scale = 1 / np.sqrt(np.maximum(lengths, 1) * self.plan.rank)
        return (sums * self.items[target]).sum(1) * scale


def generate(plan: Plan, output: str) -> dict[str, Any]:
    """Write the splits; returns what info.json holds."""
    truth = Truth(plan)
    with Output(output, row_group_rows=16_384) as out:
        bayes: dict[str, dict[str, float]] = {}
        for number, split in enumerate(SPLITS):
            table, logits = truth.rows(getattr(plan, split), seed=plan.seed * 1000 + number)
            out.write(split, table)
            bayes[split] = scores(table["label"].to_numpy(), sigmoid(logits))
        out.info = {"dataset": "planted", "plan": asdict(plan), "bayes": bayes}
    return {"rows": out.rows, **out.info}
