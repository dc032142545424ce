"""What every sparse optimizer is."""

# U rows that a step touches, D embedding width
from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.registry import Registry
from rec.protos import optimizer_pb2

RULES = Registry("sparse optimizer", "rec.embedding.rules")

log = logging.getLogger(__name__)

# fbgemm's, for the optimizers whose message has no eps.
EPS = 1e-8


@dataclass(frozen=True)
class Kernel:
    """An optimizer of fbgemm's kernels: its `EmbOptimType`, arguments and names of its states.

    Attributes:
        optim_type: name in `fbgemm_gpu.split_embedding_configs.EmbOptimType`.
        arguments: keyword arguments of the table batched embedding.
        states: our names of its states, in its order.
    """

    optim_type: str
    arguments: dict[str, Any] = field(default_factory=dict)
    states: tuple[str, ...] = ()


class SparseRule:
    """One update of the rows that a step touches; rows that it does not touch stay as they are.

    Weight decay acts on touched rows only, once a step. L2 adds `weight_decay * w` to the gradient,
    DECOUPLE subtracts `lr * weight_decay * w` from the row (AdamW). L2_ELAPSED adds `weight_decay * w`
    once for every step since the row was last touched: on average over time what an L2 penalty on the
    whole table adds, without a pass over the whole table. L2_ALL_ROWS is the exception: every row is
    updated in every step, as a dense optimizer does.

    Args:
        config: a message of the oneof `optimizer` of `SparseOptimizer`.

    Attributes:
        element_states: names of states of the shape of the table, [rows, dim].
        row_states: names of states with one number a row, [rows].
        all_rows: whether a step updates the rows that it did not look up, too.
        counts_steps: whether it uses the number of the step.
        bounded: whether the size of a step does not grow with its gradient, which L2_ELAPSED asks for:
            the decay of a row untouched for long comes as one large gradient.
        max_gradient: gradients of look-ups are clipped to +- this, element by element; 0 is not at all.
    """

    element_states: tuple[str, ...] = ()
    row_states: tuple[str, ...] = ()
    counts_steps = False
    bounded = False

    def __init__(self, config: Any) -> None:
        self.lr = float(config.lr)
        self.max_gradient = float(config.max_gradient) if config.gradient_clipping else 0.0
        if config.gradient_clipping and config.max_gradient <= 0:
            raise ConfigError(f"max_gradient {config.max_gradient} must be positive", config, "max_gradient")
        if self.lr < 0:
            raise ConfigError(f"lr {self.lr} must not be negative", config, "lr")
        decay = float(config.weight_decay)
        if decay < 0:
            raise ConfigError(f"weight_decay {decay} must not be negative", config, "weight_decay")
        mode = config.weight_decay_mode
        if decay and mode == optimizer_pb2.NONE:
            log.warning("sparse weight_decay %g has no effect: weight_decay_mode is NONE", decay)
            decay = 0.0
        elif not decay and config.HasField("weight_decay_mode") and mode != optimizer_pb2.NONE:
            name = optimizer_pb2.WeightDecayMode.Name(mode)
            log.warning("sparse weight_decay_mode %s has no effect: weight_decay is 0", name)
        self.all_rows = bool(decay) and mode == optimizer_pb2.L2_ALL_ROWS
        self.l2 = decay if mode == optimizer_pb2.L2 or self.all_rows else 0.0
        self.decouple = decay if mode == optimizer_pb2.DECOUPLE else 0.0
        self.elapsed = decay if mode == optimizer_pb2.L2_ELAPSED else 0.0
        if self.elapsed:
            if not self.bounded:
                raise ConfigError(
                    f"weight_decay_mode L2_ELAPSED does not go with {config.DESCRIPTOR.name}: the decay of a row "
                    "untouched for long would overshoot",
                    config,
                    "weight_decay_mode",
                    hint="use L2, or Adam, Adagrad, RMSprop or Adadelta",
                )
            self.row_states = (*self.row_states, "last_step")
            self.counts_steps = True

    @abstractmethod
    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """Update rows and their states in place; decay is done around it.

        Args:
            w: rows, fp32 [U, D].
            g: their gradients, [U, D]; may be overwritten.
            state: states of the rows: [U, D] or [U] each.
            lr: learning rate.
            step: number of this step, from 1.
            dim: columns that count: the rest, if any, is padding and zero.
        """

    def step(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """Decay, then update."""
        if self.l2:
            g.add_(w, alpha=self.l2)
        if self.elapsed:
            # fp32 counts exactly up to 16 million steps.
            last = state["last_step"]
            g.addcmul_(w, (step - last).unsqueeze(1), value=self.elapsed)
            last.fill_(step)
        if self.decouple:
            w.mul_(1 - lr * self.decouple)
        self.update(w, g, state, lr=lr, step=step, dim=dim)

    def cpu_kernel(self, dim: int) -> Kernel | None:
        """Fbgemm's kernel that does the same on a CPU; None when there is none."""
        return None

    def cuda_kernel(self, dim: int) -> Kernel | None:
        """Fbgemm's kernel that does the same on a GPU; None when there is none."""
        return self.cpu_kernel(dim)

    def initial(self, name: str) -> float:
        """Value of a state before the first step."""
        return 0.0

    @property
    def decays(self) -> bool:
        """Whether rows are decayed; fbgemm's CPU kernels would ignore that in silence."""
        return bool(self.l2 or self.decouple or self.elapsed)

    def clipping(self) -> dict[str, Any]:
        """Clipping as fbgemm's arguments."""
        return {"gradient_clipping": True, "max_gradient": self.max_gradient} if self.max_gradient else {}


def mean_square(g: Tensor, dim: int) -> Tensor:
    """Mean of the squares of each row, [U]."""
    return torch.linalg.vecdot(g, g).div_(dim)
