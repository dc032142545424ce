"""One optimizer step: look-up, model, loss, backward, update.

The loss of a step is, for each named loss, the sum of the weighted losses of all rows of all
micro-batches on all ranks, over the sum of their weights; added up over the names. So neither the
number of micro-batches nor of processes changes what is minimised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses import LossSum
from rec.train import ranks
from rec.train.errors import TrainingError
from rec.train.grads import Clipping, LossScaler, sum_over_ranks
from rec.train.micro import Groups, join_gradients, split_groups

if TYPE_CHECKING:
    from rec.data.batch import Batch
    from rec.network import Network
    from rec.protos import train_pb2
    from rec.tasks import Task
    from rec.train.optimizers import DenseOptimizers

Predictions = dict[str, Tensor]
Found = list[tuple["Batch", Predictions]]

_DTYPES = {"": None, "BF16": torch.bfloat16, "FP16": torch.float16}


def autocast_dtype(config: train_pb2.TrainConfig) -> torch.dtype | None:
    """The dtype of `mixed_precision`, None for plain float32."""
    try:
        return _DTYPES[config.mixed_precision.upper()]
    except KeyError:
        raise ConfigError(
            f"mixed_precision {config.mixed_precision!r}", config, "mixed_precision", hint='use "BF16" or "FP16"'
        ) from None


@dataclass(frozen=True)
class StepResult:
    """What a step leaves behind.

    Attributes:
        loss: this rank's share of the global loss (the shares add up), scalar, detached.
        predictions: of each micro-batch, with that micro-batch; fillers are not among them.
        skipped: whether FP16 gradients overflowed and nothing was updated.
        norm: of the dense gradients before clipping, where it was computed.
    """

    loss: Tensor
    predictions: Found
    skipped: bool = False
    norm: Tensor | None = None


class TrainStep:
    """Trains a network by one step at a time.

    Args:
        network: look-up and model, on `device`.
        tasks: give the losses.
        optimizers: of the dense parameters.
        config: precision, scaler, clipping.
        device: where the network is.
    """

    def __init__(
        self,
        network: Network,
        tasks: Sequence[Task],
        optimizers: DenseOptimizers,
        *,
        config: train_pb2.TrainConfig,
        device: torch.device,
    ) -> None:
        self.network = network
        self.tasks = tasks
        self.optimizers = optimizers
        self.device = device
        self.dtype = autocast_dtype(config)
        self.clip = Clipping(config.grad_clipping if config.HasField("grad_clipping") else None)
        self.scaler = LossScaler(config.grad_scaler, device=device) if self.dtype is torch.float16 else None
        self.params = list(optimizers.params.values())
        self.world = ranks.world()

    def __call__(self, batches: Sequence[Batch], *, step: int) -> StepResult:
        """Update the network on the rows of `batches`, its micro-batches.

        Args:
            batches: on the device; usually one.
            step: number of the step, from 1, for messages.
        """
        self.optimizers.zero_grad()
        # Where this rank has rows left, its fillers stand for nothing; alone, one keeps the collectives in step.
        batches = [batch for batch in batches if not batch.filler] or batches[:1]
        whole = len(batches) == 1 and self.scaler is None
        result = self._whole(batches[0], step) if whole else self._in_parts(batches, step)
        if not result.skipped:
            for task in self.tasks:
                for batch, predictions in result.predictions:
                    task.remember(predictions, batch)
        return result

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, around the model only: tables and losses stay in float32."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _whole(self, batch: Batch, step: int) -> StepResult:
        """One backward through model and look-up."""
        groups = self.network.embedding(batch.features)
        with self.autocast():
            predictions = self.network.model(groups)
        sums = self._losses(predictions, batch, step)
        loss = self._share(sums, self._global(_denominators(sums)))
        self._check(loss, sums, step)
        if loss.requires_grad:
            loss.backward()
        return self._update(loss, _of_rows(batch, predictions))

    def _in_parts(self, batches: Sequence[Batch], step: int) -> StepResult:
        """One look-up over all micro-batches, the model on each, one backward into the look-up."""
        joined = batches[0] if len(batches) == 1 else type(batches[0]).concat(list(batches))
        groups = self.network.embedding(joined.features)
        parts = split_groups(groups, [batch.size for batch in batches], [batch.items for batch in batches])
        factor = self.scaler.scale if self.scaler else 1.0
        predictions: Found = []
        denominators: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        for i, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            with self.autocast():
                found = self.network.model(part)
            sums = self._losses(found, batch, step)
            if i == 0:
                expected = self._probe(found, sums, batches, step)
                denominators = self._global({n: torch.stack([e[n] for e in expected]).sum() for n in expected[0]})
            elif any(not torch.equal(expected[i][n], s.denominator) for n, s in sums.items()):
                raise TrainingError(
                    f"step {step}: the denominator of a loss ({', '.join(sums)}) depends on the predictions, so micro-"
                    "batches cannot be added up exactly; unset gradient_accumulation_steps, or let it depend on labels "
                    "and weights only"
                )
            loss = self._share(sums, denominators)
            if self.scaler is None:
                self._check(loss, sums, step)
            if loss.requires_grad:
                (loss * factor).backward()
            total += loss.detach()
            predictions += _of_rows(batch, found)
        return self._finish_parts(groups, parts, total, predictions, step)

    def _finish_parts(
        self, groups: Groups, parts: list[Groups], total: Tensor, predictions: Found, step: int
    ) -> StepResult:
        outputs, gradients = join_gradients(groups, parts)
        if self.scaler is not None:
            dense = [p.grad for p in self.params if p.grad is not None]
            finite = self.scaler.unscale([*gradients, *dense])
            self.scaler.update(finite, step)
            if not finite:
                return StepResult(total, predictions, skipped=True)
        if outputs:
            torch.autograd.backward(outputs, gradients)
        return self._update(total, predictions)

    def _update(self, loss: Tensor, predictions: Found) -> StepResult:
        if self.world > 1:
            sum_over_ranks(self.params)
        norm = self.clip(self.params)
        self.optimizers.step()
        return StepResult(loss.detach(), predictions, norm=norm)

    def _losses(self, predictions: Predictions, batch: Batch, step: int) -> dict[str, LossSum]:
        sums: dict[str, LossSum] = {}
        for task in self.tasks:
            sums |= task.training_loss(predictions, batch, step=step)
        if batch.filler:
            return {n: LossSum(s.numerator * 0.0, torch.zeros_like(s.denominator)) for n, s in sums.items()}
        return sums

    def _probe(
        self, predictions: Predictions, sums: dict[str, LossSum], batches: Sequence[Batch], step: int
    ) -> list[dict[str, Tensor]]:
        """Denominators of every micro-batch before the model has seen the later ones.

        They come from labels and weights; the predictions of the first micro-batch stand in for those
        of the others, which keeps activations of one micro-batch in memory at a time.
        """
        probed = [_denominators(sums)]
        first = batches[0]
        for batch in batches[1:]:
            told = [task.denominators(batch) for task in self.tasks]
            if all(each is not None for each in told):
                probed.append({name: value for each in told if each for name, value in each.items()})
                continue
            # By number of rows there: those of the batch, or of its items.
            rows = {
                a: torch.arange(b, device=self.device) % max(a, 1)
                for a, b in ((first.items, batch.items), (first.size, batch.size))
            }
            stand_in = {
                n: p.detach()[rows[p.shape[0]]] if p.ndim and p.shape[0] in rows else p.detach()
                for n, p in predictions.items()
            }
            probed.append(_denominators(self._losses(stand_in, batch, step)))
        return probed

    def _global(self, denominators: dict[str, Tensor]) -> dict[str, Tensor]:
        """Denominators summed over all ranks."""
        if self.world == 1:
            return denominators
        flat = torch.stack([d.to(self.device, torch.float64) for d in denominators.values()])
        dist.all_reduce(flat)
        return dict(zip(denominators, flat.float().unbind(), strict=True))

    def _share(self, sums: Mapping[str, LossSum], denominators: Mapping[str, Tensor]) -> Tensor:
        means = [s.mean(denominators[name]).float() for name, s in sums.items()]
        return means[0] if len(means) == 1 else torch.stack(means).sum()

    def _check(self, loss: Tensor, sums: Mapping[str, LossSum], step: int) -> None:
        """On the CPU before anything is updated; on a GPU the trainer looks at the running sum instead."""
        if self.device.type == "cpu" and not math.isfinite(loss.detach().item()):
            raise not_finite(step, {name: float(s.mean().detach()) for name, s in sums.items()})


def not_finite(step: int, losses: Mapping[str, float], within: int = 0) -> TrainingError:
    """The error for a loss that is nan or inf."""
    when = f"within the {within} steps up to step {step}" if within else f"at step {step}"
    listed = ", ".join(f"{name} = {value:g}" for name, value in losses.items())
    return TrainingError(
        f"the loss is not finite {when} ({listed}); try a smaller lr or a warm-up, grad_clipping, a normalizer for raw "
        'features with large values, or mixed_precision "BF16" instead of "FP16"; the last checkpoint is from before'
    )


def _of_rows(batch: Batch, predictions: Predictions) -> Found:
    return [] if batch.filler else [(batch, {name: value.detach() for name, value in predictions.items()})]


def _denominators(sums: Mapping[str, LossSum]) -> dict[str, Tensor]:
    return {name: s.denominator for name, s in sums.items()}
