"""Metrics and loss means of all tasks together: over an evaluation, and following training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rec.losses import LossSum
from rec.metrics import Histogram, Metric, SumMetric
from rec.metrics.base import collective_device, world_size
from rec.tasks.base import Predictions, Task

if TYPE_CHECKING:
    from rec.data.batch import Batch


class MeanLoss(SumMetric):
    """Mean of a loss over all batches, each row by its weight."""

    larger_is_better = False

    def add_sum(self, loss: LossSum) -> None:
        """Adds the two parts of a batch's mean."""
        self.add(numerator=loss.numerator, denominator=loss.denominator)

    def update(self, scores: Tensor, labels: Tensor, **_: Any) -> None:
        raise TypeError("MeanLoss takes sums: call add_sum")

    def compute(self) -> float:
        if self.empty or self["denominator"] == 0:
            return float("nan")
        return float(self["numerator"] / self["denominator"])


@dataclass(frozen=True)
class Measured:
    """What an evaluation found, over all ranks.

    Attributes:
        values: by name: the metrics, then `loss` and its parts.
        histograms: by name, of the metrics that have one.
        rows: how many were evaluated.
    """

    values: dict[str, float]
    histograms: dict[str, Histogram]
    rows: int


class Evaluation:
    """All metrics of an evaluation, and the means of all losses (`loss`, `loss_<name>`).

    Usage:
        evaluation = Evaluation(tasks)
        for batch in loader: evaluation.update(network(batch.features), batch)
        result = evaluation.compute()      # a collective call where there are several ranks
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.metrics: dict[str, Metric] = {}
        for task in tasks:
            self.metrics |= task.metrics()
        self.losses: dict[str, MeanLoss] = {}
        self.rows = 0

    @torch.no_grad()
    def update(self, predictions: Predictions, batch: Batch) -> None:
        """Adds a batch; one that only fills up a rank's steps counts nothing."""
        if batch.filler:
            return
        for task in self.tasks:
            task.update(self.metrics, predictions, batch)
            for name, loss in task.loss(predictions, batch).items():
                self.losses.setdefault(name, MeanLoss()).add_sum(loss)
        self.rows += batch.size

    def compute(self, group: Any = None) -> dict[str, float]:
        """Values by name over all ranks: the metrics, then `loss` and its parts."""
        return self.measured(group).values

    def measured(self, group: Any = None) -> Measured:
        """Everything over all ranks. A collective call."""
        names = _losses_of_all(self.losses, group)
        losses = {name: self.losses.get(name, MeanLoss()).merged(group).compute() for name in names}
        values: dict[str, float] = {}
        histograms: dict[str, Histogram] = {}
        for name, metric in self.metrics.items():
            merged = metric.merged(group)
            values |= merged.report(name)
            histogram = merged.histogram()
            if histogram is not None:
                histograms[name] = histogram
        # A task space may be empty in a small evaluation: its loss is 0 there, and nan by itself.
        known = [value for value in losses.values() if value == value]
        values |= {"loss": sum(known) if known else float("nan")} | losses
        return Measured(values, histograms, _sum_over_ranks(self.rows, group))


def _sum_over_ranks(count: int, group: Any) -> int:
    if world_size(group) == 1:
        return count
    total = torch.tensor(count, device=collective_device(group))
    torch.distributed.all_reduce(total, group=group)
    return int(total)


def _losses_of_all(losses: dict[str, MeanLoss], group: Any) -> list[str]:
    """Names of the losses on any rank: one without rows has none of its own."""
    if world_size(group) == 1:
        return list(losses)
    gathered: list[list[str]] = [[]] * world_size(group)
    torch.distributed.all_gather_object(gathered, list(losses), group=group)
    return list(dict.fromkeys(name for names in gathered for name in names))


class TrainMetrics:
    """Metrics that follow training: every `decay_step` steps what was added so far counts `decay_rate`."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.metrics: dict[str, Metric] = {}
        self._decays: dict[str, tuple[float, int]] = {}
        for task in tasks:
            self.metrics |= task.train_metrics()
            self._decays |= task.decays()
        self.steps = 0

    def update(self, predictions: Predictions, batch: Batch) -> None:
        """Adds the batch of a step (call it once for each micro-batch, then `step`)."""
        if not self.metrics or batch.filler:
            return
        for task in self.tasks:
            task.update(self.metrics, predictions, batch)

    def step(self) -> None:
        """Ends an optimizer step: the decay happens where it is due."""
        self.steps += 1
        for name, (rate, every) in self._decays.items():
            if every and self.steps % every == 0:
                metric = self.metrics[name]
                assert isinstance(metric, SumMetric), "checked when the tasks were built"
                metric.decay(rate)

    def compute(self, group: Any = None) -> dict[str, float]:
        """Values by name, as `train_<name>`; a collective call where there are several ranks."""
        return {f"train_{name}": metric.merged(group).compute() for name, metric in self.metrics.items()}

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint, flat: `steps`, `<metric>/<sum>`."""
        flat = {"steps": torch.tensor(self.steps)}
        for name, metric in self.metrics.items():
            flat |= {f"{name}/{key}": value for key, value in metric.state().items()}
        return flat

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""
        self.steps = int(state["steps"])
        for name, metric in self.metrics.items():
            prefix = f"{name}/"
            metric.load_state({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
