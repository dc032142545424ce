"""Generated click data with a planted truth: the best AUC and logloss that any model can reach are known.

`python -m tools.generate --output data/planted` writes train, valid and test as parquet, and info.json with the
Bayes figures of each split. The logit of a row is a sum of

* dense columns dense_<i>, log-normal, with a linear weight;
* id columns cat_<i>, zipf-distributed, with a weight per id and planted pairs <u_a, v_b> of neighbouring columns;
* with a history: the interest <z_target, mean of z over the history's last items>, items from the target's catalogue.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tools.convert.output import Output
from tools.scores import auc, logloss


@dataclass(frozen=True)
class Plan:
    """What to generate."""

    train: int = 200_000
    valid: int = 20_000
    test: int = 20_000
    dense: int = 4
    vocabularies: tuple[int, ...] = (400, 200, 100, 50, 20, 10)
    zipf: float = 1.1
    pairs: int = 4  # planted pairs of id columns
    rank: int = 4  # width of the planted vectors
    history: int = 0  # longest history; 0 for none
    items: int = 500  # catalogue of the history and its target
    bias: float = -1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.pairs >= len(self.vocabularies) > 0:
            raise ValueError(f"{self.pairs} pairs of neighbours need {self.pairs + 1} id columns")


def zipf_ids(generator: np.random.Generator, *, size: int, vocabulary: int, exponent: float) -> np.ndarray:
    """Ids in [0, vocabulary) whose probability falls as rank^-exponent; the rank is scrambled over the ids.

    By inverting the distribution function of the bounded power law, O(1) a draw however large the vocabulary.
    """
    power = 1.0 - exponent
    draws = generator.random(size)
    if abs(power) < 1e-9:
        ranks = np.exp(draws * np.log(vocabulary + 1.0))
    else:
        ranks = (1.0 + draws * ((vocabulary + 1.0) ** power - 1.0)) ** (1.0 / power)
    place = np.minimum(ranks.astype(np.int64) - 1, vocabulary - 1)
    step = next(k for k in range(int(vocabulary * 0.618) + 1, 2 * vocabulary + 2) if np.gcd(k, vocabulary) == 1)
    return place * step % vocabulary


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
        columns["label"] = (generator.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int32)
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
        for number, split in enumerate(("train", "valid", "test")):
            table, logits = truth.rows(getattr(plan, split), seed=plan.seed * 1000 + number)
            out.write(split, table)
            labels = table["label"].to_numpy()
            bayes[split] = {"auc": auc(labels, logits), "logloss": logloss(labels, 1 / (1 + np.exp(-logits)))}
        out.info = {"dataset": "planted", "plan": asdict(plan), "bayes": bayes}
    return {"rows": out.rows, **out.info}


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", default="data/planted", help="folder of the parquet files (%(default)s)")
    default = Plan()
    for name in ("train", "valid", "test", "dense", "pairs", "rank", "history", "items", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name), help="default %(default)s")
    parser.add_argument("--vocabularies", type=int, nargs="*", default=default.vocabularies, help="ids per column")
    parser.add_argument("--zipf", type=float, default=default.zipf, help="exponent; default %(default)s")
    parser.add_argument("--bias", type=float, default=default.bias, help="of the logit; default %(default)s")
    given = vars(parser.parse_args(arguments))
    output = given.pop("output")
    given["vocabularies"] = tuple(given["vocabularies"])
    print(json.dumps(generate(Plan(**given), output), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
