"""What every task does with the predictions of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

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

    @abstractmethod
    def loss(self, predictions: Predictions, batch: Batch) -> dict[str, LossSum]:
        """Losses by name (`loss_<loss>`), the task's weight included: their means add up to the total."""

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
