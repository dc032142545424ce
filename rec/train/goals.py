"""Which metric counts: for the best checkpoint, and for early stopping."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rec.config.errors import ConfigError
from rec.config.names import suggest

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from rec.metrics import Metric
    from rec.protos.pipeline_pb2 import EasyRecConfig


@dataclass(frozen=True)
class Goal:
    """A metric to improve.

    Attributes:
        metric: its name in the evaluation.
        larger: whether larger is better.
    """

    metric: str
    larger: bool = True

    def better(self, value: float, than: float | None, *, by: float = 0.0) -> bool:
        """Whether a value improves on another by more than `by`; nan never does."""
        if math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value > than + by if self.larger else value < than - by

    def best(self, values: Sequence[tuple[int, float]]) -> tuple[int, float] | None:
        """The first of the best (step, value)."""
        best: tuple[int, float] | None = None
        for step, value in values:
            if self.better(value, best[1] if best else None):
                best = step, value
        return best


@dataclass(frozen=True)
class Patience:
    """`early_stopping`: stop once the metric did not improve by `min_delta` in `patience` evaluations in a row.

    Attributes:
        goal: the metric.
        patience: evaluations in a row without improvement that end the training.
        min_delta: a smaller change is none.
        lr_factor: multiplies the learning rates with every evaluation without improvement.
    """

    goal: Goal
    patience: int
    min_delta: float = 0.0
    lr_factor: float = 1.0

    def exhausted(self, values: Sequence[tuple[int, float]]) -> bool:
        """Whether training stops after these evaluations."""
        return any(waited >= max(1, self.patience) for waited in self._waits(values))

    def misses(self, values: Sequence[tuple[int, float]]) -> int:
        """How many of these evaluations brought no improvement, in a row or not."""
        return sum(waited > 0 for waited in self._waits(values))

    def _waits(self, values: Sequence[tuple[int, float]]) -> Iterator[int]:
        """After each evaluation, how many in a row brought no improvement."""
        best: float | None = None
        waited = 0
        for _, value in values:
            if self.goal.better(value, best, by=self.min_delta if best is not None else 0.0):
                best, waited = value, 0
            else:
                waited += 1
            yield waited


def build_goal(config: EasyRecConfig, metrics: Mapping[str, Metric]) -> Goal:
    """What makes a checkpoint the best one: `best_metric`, else `best_exporter_metric`, else the loss.

    Args:
        config: the pipeline config.
        metrics: those of an evaluation by name.
    """
    train, export = config.train_config, config.export_config
    if train.HasField("best_metric"):
        larger = train.best_metric_larger_is_better if train.HasField("best_metric_larger_is_better") else None
        return _goal(train.best_metric, larger, metrics, train, "best_metric")
    if export.HasField("best_exporter_metric"):
        larger = export.metric_larger_is_better if export.HasField("metric_larger_is_better") else None
        return _goal(export.best_exporter_metric, larger, metrics, export, "best_exporter_metric")
    default = export.best_exporter_metric
    return Goal(default, metrics[default].larger_is_better) if default in metrics else Goal("loss", larger=False)


def build_patience(config: EasyRecConfig, metrics: Mapping[str, Metric]) -> Patience | None:
    """`early_stopping`, None where it is not configured."""
    if not config.train_config.HasField("early_stopping"):
        return None
    msg = config.train_config.early_stopping
    if msg.patience < 1:
        raise ConfigError("patience is 0: training would stop at once", msg, "patience", hint="set 1 or more")
    if msg.min_delta < 0:
        raise ConfigError(f"min_delta is {msg.min_delta:g}, expected 0 or more", msg, "min_delta")
    larger = msg.larger_is_better if msg.HasField("larger_is_better") else None
    if not 0 < msg.lr_factor <= 1:
        raise ConfigError(f"lr_factor is {msg.lr_factor:g}, expected more than 0 and at most 1", msg, "lr_factor")
    return Patience(_goal(msg.metric, larger, metrics, msg, "metric"), msg.patience, msg.min_delta, msg.lr_factor)


def _goal(name: str, larger: bool | None, metrics: Mapping[str, Metric], msg: Message, field: str) -> Goal:
    if name == "loss" or name.startswith("loss_"):
        return Goal(name, larger=bool(larger))
    if name not in metrics:
        raise ConfigError(
            f'"{name}" is no metric of the evaluation',
            msg,
            field,
            hint=suggest(name, [*metrics, "loss"], what="metrics:"),
        )
    return Goal(name, metrics[name].larger_is_better if larger is None else larger)
