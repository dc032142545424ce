"""What changes while a network is trained, and is the same again after a resume."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rec.tasks import TrainMetrics
from rec.train import ranks, state
from rec.train.checkpoint import Checkpoint, CheckpointError, differences, refuse
from rec.train.ema import Ema
from rec.train.grads import LossScaler
from rec.train.optimizers import DenseOptimizers

if TYPE_CHECKING:
    from rec.network import Network

log = logging.getLogger(__name__)


class Run:
    """Weights, optimizer state, averages, counters, random numbers: the content of a checkpoint.

    Args:
        network: look-up and model.
        optimizers: of the dense parameters.
        train_metrics: that follow training.
        ema: averages, None without.
        scaler: of FP16, None without.
        device: where the network is.

    Attributes:
        step: optimizer steps done.
        epoch: whole epochs done.
        position: of the reader within the epoch, None at its start.
        seconds: of training, all runs together.
    """

    def __init__(
        self,
        network: Network,
        optimizers: DenseOptimizers,
        train_metrics: TrainMetrics,
        *,
        ema: Ema | None,
        scaler: LossScaler | None,
        device: torch.device,
    ) -> None:
        self.network, self.optimizers, self.train_metrics = network, optimizers, train_metrics
        self.ema, self.scaler, self.device = ema, scaler, device
        self.step = 0
        self.epoch = 0
        self.position: dict[str, Any] | None = None
        self.seconds = 0.0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._loss_steps = 0

    @property
    def epochs_begun(self) -> int:
        """Whole epochs, and the one that it is in."""
        return self.epoch + (self.position is not None)

    def advance(self, loss: Tensor | None, position: dict[str, Any], *, ended: bool) -> None:
        """Count a step.

        Args:
            loss: this rank's share of it; None for a step that was left out (FP16 overflow).
            position: of the reader after its last batch.
            ended: whether it was the epoch's last.
        """
        if self.position is None:
            self._loss.zero_()
            self._loss_steps = 0
        if loss is not None:
            self._loss += loss
            self._loss_steps += 1
        self.step += 1
        self.position = position
        if ended:
            self.epoch, self.position = self.epoch + 1, None

    def mean_loss(self) -> float:
        """Over the steps of this epoch so far (or of the whole one that just ended), and all ranks."""
        return ranks.total(float(self._loss)) / max(self._loss_steps, 1)

    def tensors(self) -> dict[str, Any]:
        """What a checkpoint holds as tensors, by name (rec.train.state)."""
        remembered = {n: t for task in self.train_metrics.tasks for n, t in task.state().items()}
        return {
            **state.network_tensors(self.network),
            **self._averages(),
            **{f"optimizer/{n}": t for n, t in self.optimizers.state().items()},
            **state.rank_tensors(
                ranks.rank(), {"metrics": self.train_metrics.state(), "tasks": remembered}, self.device
            ),
        }

    def info(self) -> dict[str, Any]:
        """What a checkpoint holds beside tensors, JSON-able. A collective call."""
        return {
            "epoch": self.epoch,
            "positions": ranks.gather(self.position),
            "seconds": self.seconds,
            "loss_sums": ranks.gather(float(self._loss)),
            "loss_steps": self._loss_steps,
            "optimizers": self.optimizers.kinds(),
            "scaler": self.scaler.state() if self.scaler else None,
            "world": ranks.world(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what was saved.

        Raises:
            CheckpointError: when the network, its optimizers or averages are not those of the checkpoint.
        """
        info = checkpoint.info
        if info["optimizers"] != self.optimizers.kinds():
            raise CheckpointError(
                f"{checkpoint.path} was trained with {info['optimizers']}, the config says {self.optimizers.kinds()}: "
                "their states do not fit. Use another model_dir, with fine_tune_checkpoint to start from these weights."
            )
        state.load_network(self.network, checkpoint, weights_only=False)
        self._load_averages(checkpoint)
        self.optimizers.load_state(checkpoint.read(prefix="optimizer/"))
        own = state.load_rank(checkpoint, ranks.rank(), self.device)
        if own["metrics"]:
            self.train_metrics.load_state(own["metrics"])
        for task in self.train_metrics.tasks:
            task.load_state(own["tasks"], self.device)
        if self.scaler is not None and info["scaler"]:
            self.scaler.load_state(info["scaler"])
        same = info["world"] == ranks.world()
        self.step, self.epoch, self.seconds = info["step"], info["epoch"], info["seconds"]
        # of another number of processes: the loader finds the place by the rows read, and says what that means
        self.position = info["positions"][ranks.rank() if same else 0]
        self._loss.fill_(info["loss_sums"][ranks.rank()] if same else sum(info["loss_sums"]) / ranks.world())
        self._loss_steps = info["loss_steps"]
        if ranks.rank() == 0:
            log.info("resumed from %s (epoch %d)", checkpoint.path, self.epochs_begun)

    def restore_weights(self, checkpoint: Checkpoint) -> None:
        """Take weights and averages of a checkpoint; optimizers and counters stay."""
        state.load_network(self.network, checkpoint)
        self._load_averages(checkpoint)

    def _averages(self) -> dict[str, Tensor]:
        return {} if self.ema is None else {f"ema/{n}": t for n, t in self.ema.state().items()}

    def _load_averages(self, checkpoint: Checkpoint) -> None:
        averages = self._averages()
        found = {n: s for n, s in checkpoint.shapes.items() if n.startswith("ema/")}
        if self.ema is None:
            if found:
                log.warning("%s has averages of the weights, but ema is not configured: they are left", checkpoint.path)
            return
        refuse(
            f"checkpoint {checkpoint.path}",
            differences(state.shapes_of(averages), found),
            "It was trained without ema: drop dense_optimizer.ema, or use another model_dir.",
        )
        checkpoint.load(averages)
