"""`metrics.jsonl`: one line for each evaluation, and what follows from the lines.

The best step and early stopping are computed from the lines alone. So they need no state of their
own, and a resumed run decides as the unbroken one did.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rec.metrics import Histogram

# Parts of a line that some evaluations have.
_OPTIONAL = ("train", "train_rows", "gap")


@dataclass(frozen=True)
class Record:
    """One evaluation.

    Attributes:
        step, epoch: steps done and epochs begun (an epoch counts as done with its last step).
        seconds: of training so far, all runs together.
        rows: rows evaluated.
        metrics: values by name.
        split: "eval" or "test".
        train: loss and train metrics at that time.
        histograms: {"edges": [...], "counts": [...]} by name of the metric.
        train_rows: values by name over a sample of the training rows, where `eval_config.train_rows` asks for it.
        gap: how much those exceed `metrics`.
    """

    step: int
    epoch: int
    seconds: float
    rows: int
    metrics: dict[str, float]
    split: str = "eval"
    train: dict[str, float] | None = None
    histograms: dict[str, dict[str, list[float]]] | None = None
    train_rows: dict[str, float] | None = None
    gap: dict[str, float] | None = None

    def to_json(self) -> str:
        """One line."""
        entry: dict[str, Any] = {
            "step": self.step,
            "epoch": self.epoch,
            "seconds": round(self.seconds, 3),
            "rows": self.rows,
            "split": self.split,
            "metrics": _nulls(self.metrics),
        }
        for name in _OPTIONAL:
            if (values := getattr(self, name)) is not None:
                entry[name] = _nulls(values)
        if self.histograms:
            entry["histograms"] = self.histograms
        return json.dumps(entry)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Back from a line."""
        entry = json.loads(line)
        for name in ("metrics", *_OPTIONAL):
            if entry.get(name) is not None:
                entry[name] = {key: math.nan if v is None else v for key, v in entry[name].items()}
        return cls(**entry)


def _nulls(values: Mapping[str, float]) -> dict[str, float | None]:
    """A nan is null: NaN is no JSON, and other readers than Python's stop at it."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def as_json(histograms: Mapping[str, Histogram]) -> dict[str, dict[str, list[float]]]:
    """Edges and counts of histograms, by name."""
    return {name: {"edges": list(h.edges), "counts": list(h.counts)} for name, h in histograms.items()}


class History:
    """The lines of a `metrics.jsonl`.

    Args:
        path: the file; None keeps the records in memory only (other ranks than 0).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: list[Record] = []

    def resume(self, step: int) -> None:
        """Keep what was recorded up to `step`; later lines, and a torn last one, are dropped.

        Args:
            step: of the checkpoint that the run goes on from, -1 for a new run.
        """
        self.read()
        if self.path is None or not self.path.exists():
            return
        self.records = [record for record in self.records if record.step <= step]
        aside = self.path.with_name(self.path.name + ".tmp")
        with open(aside, "w", encoding="utf-8") as f:
            f.writelines(r.to_json() + "\n" for r in self.records)
            f.flush()
            os.fsync(f.fileno())
        aside.replace(self.path)

    def read(self) -> History:
        """Take the lines that are in the file, which stays as it is; a torn last one is passed over."""
        self.records = []
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path and self.path.exists() else []
        for line in lines:
            try:
                self.records.append(Record.from_json(line))
            except (ValueError, TypeError, AttributeError):
                continue  # torn by a kill while it was written
        return self

    def has(self, step: int, split: str) -> bool:
        """Whether the evaluation of a step is recorded."""
        return any(r.step == step and r.split == split for r in self.records)

    def at(self, step: int, split: str) -> Record:
        """The recorded evaluation of a step."""
        return next(r for r in self.records if r.step == step and r.split == split)

    def add(self, record: Record) -> None:
        """Append a line in one write, unless that evaluation is there already."""
        if self.has(record.step, record.split):
            return
        self.records.append(record)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(record.to_json() + "\n")
                f.flush()
                os.fsync(f.fileno())

    def values(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric over the evaluations, in order."""
        return [(r.step, r.metrics[metric]) for r in self.records if r.split == "eval" and metric in r.metrics]


def describe(metrics: Mapping[str, float]) -> str:
    """Metrics for a log line: `auc 0.7412  logloss 0.4301`."""
    return "  ".join(
        f"{name} {value:.5g}" if abs(value) < 1e5 else f"{name} {value:g}" for name, value in metrics.items()
    )
