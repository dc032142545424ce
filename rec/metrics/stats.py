"""What a prediction looks like over the rows: mean, spread and histogram in bounded memory."""

# N values, K cells
from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from rec.config.errors import ConfigError
from rec.metrics.base import METRICS, Histogram, Metric, collective_device, world_size
from rec.protos import metric_pb2 as pb

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

# The median is found among so many cells of each bin.
CELLS = 64


@METRICS.register(pb.PredictionStats)
class PredictionStats(Metric):
    """Mean, standard deviation, smallest, largest and median of a named prediction, and its histogram.

    Sums, extremes and counts of cells are all that is kept: 10 KiB for 20 bins.
    """

    kinds = ("binary", "multiclass", "regression", "retrieval")
    _sums: Tensor
    _cells: Tensor
    _low: float
    _high: float

    def __init__(self, config: pb.PredictionStats) -> None:
        if config.bins < 1:
            raise ConfigError("bins is 0: a histogram needs one", config, "bins", hint="set 20, for example")
        if not (math.isfinite(config.low) and math.isfinite(config.high) and config.low < config.high):
            raise ConfigError(
                f"low is {config.low:g} and high {config.high:g}",
                config,
                "high" if config.HasField("high") else "low",
                hint="give the range of the values, low below high",
            )
        self.prediction = config.prediction
        self.bins, self.low, self.high = config.bins, config.low, config.high
        # Squares of distances from here: those from 0 would cancel where the spread is small beside the mean.
        self._centre = (self.low + self.high) / 2
        self.reset()

    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            scores: values of the prediction, [B, ...].
            labels: not looked at.
            weights: [B], or None for 1 each.
            keys: not looked at.
        """
        values_N = scores.detach().double().flatten()
        if values_N.numel() == 0:
            return
        if weights is None:
            weights_N = torch.ones_like(values_N)
        else:
            weights_N = weights.double().repeat_interleave(values_N.numel() // weights.numel())
        weights_N = weights_N.to(values_N.device)
        off_N = values_N - self._centre
        sums = torch.stack([weights_N.sum(), (weights_N * off_N).sum(), (weights_N * off_N.square()).sum()])
        self._sums = self._sums + sums.cpu()
        smallest, largest = (float(v) for v in torch.aminmax(values_N))
        self._low, self._high = min(self._low, smallest), max(self._high, largest)
        cells = len(self._cells)
        # Not a number: in no cell, but in the sums, where it shows.
        finite_N = ~torch.isnan(values_N)
        share_N = (values_N[finite_N] - self.low) / (self.high - self.low)
        cell_N = (share_N.clamp(0, 1) * cells).long().clamp(max=cells - 1)
        self._cells = self._cells + torch.bincount(cell_N, weights_N[finite_N], minlength=cells).cpu()

    def compute(self) -> float:
        """The mean."""
        return self.report("")["_mean"]

    def report(self, name: str) -> dict[str, float]:
        """`<name>_mean`, `_std`, `_min`, `_max` and `_median`; nan where nothing was added."""
        count, off, squares = self._sums.tolist()
        if count == 0:
            return dict.fromkeys((f"{name}_{what}" for what in ("mean", "std", "min", "max", "median")), math.nan)
        mean = off / count
        variance = squares / count - mean**2
        return {
            f"{name}_mean": self._centre + mean,
            f"{name}_std": math.sqrt(max(variance, 0.0)) if variance == variance else math.nan,
            f"{name}_min": self._low,
            f"{name}_max": self._high,
            f"{name}_median": self._median(),
        }

    def _median(self) -> float:
        """Where half of the weight lies on either side; within a cell evenly spread."""
        below = torch.cumsum(self._cells, 0)
        half = float(below[-1]) / 2
        if half == 0:
            return math.nan
        cell = int(torch.searchsorted(below, half))
        inside = float(self._cells[cell])
        into = (half - float(below[cell]) + inside) / inside
        return self.low + (cell + into) * (self.high - self.low) / len(self._cells)

    def histogram(self) -> Histogram | None:
        count, off, squares = self._sums.tolist()
        if count == 0:
            return None
        edges = [self.low + (self.high - self.low) * i / self.bins for i in range(self.bins + 1)]
        c = self._centre
        return Histogram(
            edges=tuple(edges),
            counts=tuple(self._cells.view(self.bins, CELLS).sum(1).tolist()),
            total=off + c * count,
            squares=squares + 2 * c * off + c * c * count,
            low=self._low,
            high=self._high,
        )

    def state(self) -> dict[str, Tensor]:
        return {"sums": self._sums, "range": torch.tensor([self._low, self._high]), "cells": self._cells}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._sums, self._cells = state["sums"].double(), state["cells"].double()
        self._low, self._high = state["range"].tolist()

    def reset(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._cells = torch.zeros(self.bins * CELLS, dtype=torch.float64)
        self._low, self._high = math.inf, -math.inf

    def merged(self, group: Any = None) -> Self:
        if world_size(group) == 1:
            return self
        other, device = copy.copy(self), collective_device(group)
        added = torch.cat([self._sums, self._cells]).to(device)
        dist.all_reduce(added, group=group)
        # One call for both ends: the largest of -low and high.
        ends = torch.tensor([-self._low, self._high], dtype=torch.float64, device=device)
        dist.all_reduce(ends, dist.ReduceOp.MAX, group=group)
        other._sums, other._cells = added.cpu()[:3], added.cpu()[3:]
        other._low, other._high = -float(ends[0]), float(ends[1])
        return other
