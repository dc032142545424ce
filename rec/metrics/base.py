"""What every metric is: something gathered over batches, merged over ranks, and one number at the end.

Two kinds cover all of them: `SumMetric` holds sums (mergeable by addition, able to decay), `RowMetric`
holds the rows themselves (exact ranking metrics). B rows, C classes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

from rec.config.registry import Registry

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

METRICS = Registry("metric", "rec.metrics")


@dataclass(frozen=True)
class Histogram:
    """How values are distributed.

    Attributes:
        edges: of the bins, ascending, one more than bins.
        counts: (weighted) values of each bin.
        total, squares: sum of the values, and of their squares.
        low, high: the smallest value and the largest.
    """

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    total: float
    squares: float
    low: float
    high: float


class Metric(ABC):
    """A metric of one task.

    Attributes:
        kinds: the kinds of task (rec.losses.base.Kind, or "retrieval") whose scores it understands.
        larger_is_better: False for errors.
        prediction: name of the prediction that `update` gets as it is, in place of the score; "" for the score.
    """

    kinds: ClassVar[tuple[str, ...]] = ("binary",)
    larger_is_better: ClassVar[bool] = True
    prediction: str = ""

    @abstractmethod
    def update(
        self, scores: Tensor, labels: Tensor, *, weights: Tensor | None = None, keys: Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            scores: what is served: probabilities [B] (binary) or [B, C] (multiclass), values [B]
                (regression), ranks of the positives from 1 [B] int64 (retrieval); else float64 or float32, detached.
            labels: [B].
            weights: [B], or None for 1 each.
            keys: [B] int64, the group of each row, for metrics with a `grouping_key`.
        """

    @abstractmethod
    def compute(self) -> float:
        """The value over all that was added; nan where it is not defined (no rows, a single class)."""

    def report(self, name: str) -> dict[str, float]:
        """Everything it reports, by name; most have the one value of `compute`.

        Args:
            name: under which the metric is reported.
        """
        return {name: self.compute()}

    def histogram(self) -> Histogram | None:
        """How what was added is distributed, for metrics that tell."""
        return None

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that was added, as tensors that a checkpoint can hold."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` returned."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets all that was added."""

    @abstractmethod
    def merged(self, group: Any = None) -> Self:
        """The same metric over all ranks of a process group, on every rank. A collective call."""


class SumMetric(Metric):
    """A metric of named sums, float64, which are added over batches and ranks and may decay."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, **sums: Tensor) -> None:
        """Adds to the named sums (any shape, the same at each call)."""
        for name, value in sums.items():
            value = value.detach().to(torch.float64)
            known = self._sums.get(name)
            self._sums[name] = value if known is None else known + value.to(known.device)

    def __getitem__(self, name: str) -> Tensor:
        return self._sums[name]

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not self._sums

    def decay(self, rate: float) -> None:
        """Multiplies what was added so far: older rows count less."""
        for name in self._sums:
            self._sums[name] = self._sums[name] * rate

    def state(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self._sums.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._sums = {name: value.to(torch.float64) for name, value in state.items()}

    def reset(self) -> None:
        self._sums = {}

    def merged(self, group: Any = None) -> Self:
        if world_size(group) == 1:
            return self
        other = copy.copy(self)
        # Ranks without rows know no names or shapes: the others tell.
        shapes: list[dict[str, tuple[int, ...]]] = [{}] * world_size(group)
        dist.all_gather_object(shapes, {k: tuple(v.shape) for k, v in self._sums.items()}, group=group)
        names = {name: shape for known in shapes for name, shape in known.items()}
        other._sums = {}
        for name in sorted(names):
            value = self._sums.get(name, torch.zeros(names[name], dtype=torch.float64))
            total = value.clone().to(collective_device(group))
            dist.all_reduce(total, group=group)
            other._sums[name] = total.cpu()
        return other


class RowMetric(Metric):
    """A metric that keeps its rows: named columns, in compact types, on the host.

    Args:
        columns: name -> dtype.
    """

    def __init__(self, columns: dict[str, torch.dtype]) -> None:
        self._dtypes = columns
        self._chunks: dict[str, list[Tensor]] = {name: [] for name in columns}

    def append(self, **columns: Tensor) -> None:
        """Adds rows; each column [B]."""
        for name, values in columns.items():
            values = values.detach().to("cpu", self._dtypes[name])
            # A view would keep the whole batch alive.
            self._chunks[name].append(values.clone() if values._base is not None else values)

    def column(self, name: str) -> Tensor:
        """All rows of a column, [N]."""
        chunks = self._chunks[name]
        if len(chunks) != 1:
            chunks[:] = [torch.cat(chunks) if chunks else torch.empty(0, dtype=self._dtypes[name])]
        return chunks[0]

    def state(self) -> dict[str, Tensor]:
        return {name: self.column(name) for name in self._dtypes}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._chunks = {name: [state[name].to(dtype)] for name, dtype in self._dtypes.items()}

    def reset(self) -> None:
        self._chunks = {name: [] for name in self._dtypes}

    def merged(self, group: Any = None) -> Self:
        if world_size(group) == 1:
            return self
        other = copy.copy(self)
        other._chunks = {name: [gather_rows(self.column(name), group)] for name in self._dtypes}
        return other


def gather_rows(values: Tensor, group: Any = None) -> Tensor:
    """Concatenation of every rank's `values` [N_rank], in rank order, on every rank."""
    device = collective_device(group)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size(group))]
    dist.all_gather(sizes, torch.tensor([len(values)], device=device), group=group)
    most = int(torch.stack(sizes).max())
    # bool has no all_gather on every backend; and collectives want equal sizes.
    sent = values.to(torch.uint8) if values.dtype == torch.bool else values
    padded = torch.zeros(most, dtype=sent.dtype, device=device)
    padded[: len(values)] = sent.to(device)
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[: int(n)] for part, n in zip(parts, sizes, strict=True)]).cpu().to(values.dtype)


def world_size(group: Any = None) -> int:
    """Ranks of the group; 1 without torch.distributed."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def collective_device(group: Any = None) -> torch.device:
    """Where a tensor must be for a collective call of the group's backend."""
    return (
        torch.device("cuda", torch.cuda.current_device()) if dist.get_backend(group) == "nccl" else torch.device("cpu")
    )
