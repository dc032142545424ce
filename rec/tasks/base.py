"""What every task does with the predictions of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.losses import LossSum
from rec.metrics import Metric

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from rec.data.batch import Batch

Predictions = Mapping[str, Tensor]


def named(predictions: Predictions, name: str, message: Message | None, field: str) -> Tensor:
    """A prediction by name.

    Args:
        predictions: of the model.
        name: that a config asks for.
        message: the config that asks for it.
        field: of that message.

    Raises:
        ConfigError: when the model has none of that name.
    """
    if name not in predictions:
        raise ConfigError(
            f'the model has no prediction "{name}"', message, field, hint=suggest(name, predictions, what="it has")
        )
    return predictions[name]


class Task(ABC):
    """One thing to predict: its losses, metrics and served outputs, each by name.

    Names carry `_<tower>` where the model has several towers, so that the dicts of all tasks can be
    joined: `auc_ctr`, `loss_binary_cross_entropy_ctr`, `probs_ctr`.
    """

    name: str
    # Whether its metrics can be made of the served scores (of an export) in place of the predictions.
    measures_served: ClassVar[bool] = True

    @abstractmethod
    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        """Losses by name (`loss_<loss>`), the task's weight included: their means add up to the total."""

    def training_loss(self, predictions: Predictions, batch: Batch, *, step: int) -> dict[str, LossSum]:
        """As `loss`, in a step of training; of a task that remembers earlier steps also by what it knows of them.

        Args:
            predictions: of the model.
            batch: with labels.
            step: number of the step, from 1.
        """
        return self.loss(predictions, batch)

    def remember(self, predictions: Predictions, batch: Batch) -> None:  # noqa: B027
        """Keeps of a batch what later steps need, when its step is done."""

    def state(self) -> dict[str, Tensor]:
        """What it remembers, for a checkpoint; names can be joined with those of other tasks."""
        return {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:  # noqa: B027
        """Takes back what `state` returned.

        Args:
            state: of a checkpoint, empty where that has none.
            device: where predictions are.
        """

    def begin_anew(self) -> None:  # noqa: B027
        """Told at the start of a fine-tuning, which takes weights but nothing that tasks remember."""

    def denominators(self, batch: Batch) -> dict[str, Tensor] | None:
        """Denominators of the losses, where they can be told without predictions; else None."""
        return None

    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """New, empty metrics of an evaluation."""

    @abstractmethod
    def train_metrics(self) -> dict[str, Metric]:
        """New, empty metrics of training; see `TrainMetrics` for their decay."""

    @abstractmethod
    def decays(self) -> dict[str, tuple[float, int]]:
        """For each train metric, (rate, every so many steps)."""

    @abstractmethod
    def update(self, metrics: Mapping[str, Metric], predictions: Predictions, batch: Batch) -> None:
        """Adds a batch to those of `metrics` that are this task's."""

    @abstractmethod
    def outputs(self, predictions: Predictions) -> dict[str, Tensor]:
        """What serving returns. Traced by torch.fx: no branching on tensors."""


@dataclass(frozen=True)
class MetricSpec:
    """A metric to be made anew for each evaluation, and its decay when it follows training.

    Attributes:
        make: makes it.
        decay_rate, decay_step: every so many steps what was seen so far counts so much.
        prediction: the prediction that it reads in place of the score; "" for the score.
        message: its config, the place of an error.
    """

    make: Callable[[], Metric]
    decay_rate: float = 1.0
    decay_step: int = 0
    prediction: str = ""
    message: Message | None = None


class MeasuredTask(Task):
    """A task whose metrics are listed in its config.

    Attributes:
        metric_specs: metrics of an evaluation.
        train_metric_specs: metrics of training.
    """

    metric_specs: Mapping[str, MetricSpec]
    train_metric_specs: Mapping[str, MetricSpec]

    @property
    def suffix(self) -> str:
        """`_<tower>`, or nothing."""
        return f"_{self.name}" if self.name else ""

    def metrics(self) -> dict[str, Metric]:
        return {name + self.suffix: spec.make() for name, spec in self.metric_specs.items()}

    def train_metrics(self) -> dict[str, Metric]:
        return {name + self.suffix: spec.make() for name, spec in self.train_metric_specs.items()}

    def decays(self) -> dict[str, tuple[float, int]]:
        return {
            name + self.suffix: (spec.decay_rate, spec.decay_step) for name, spec in self.train_metric_specs.items()
        }

    def own(self, metrics: Mapping[str, Metric]) -> list[Metric]:
        """Those of `metrics` that are this task's."""
        names = {name + self.suffix: None for name in (*self.metric_specs, *self.train_metric_specs)}
        return [metrics[name] for name in names if name in metrics]

    def check_watched(self, predictions: Predictions) -> None:
        """Refuse a metric of a prediction that the model does not give: at the first step, not after an epoch."""
        for spec in self.metric_specs.values():
            if spec.prediction:
                named(predictions, spec.prediction, spec.message, "prediction")


def add_ranks(own: Sequence[Metric], predictions: Predictions, ranks: Tensor, weights: Tensor | None) -> None:
    """Adds a batch to metrics of ranks, and to those that watch a prediction.

    Args:
        own: the metrics.
        predictions: of the model.
        ranks: of the rows that count, from 1.
        weights: of those rows, or None for 1 each.
    """
    for metric in own:
        if metric.prediction:
            values = predictions[metric.prediction]
            metric.update(values, torch.ones(values.shape[0]))
        else:
            metric.update(ranks, torch.ones_like(ranks), weights=weights)
