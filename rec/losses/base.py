"""What every loss is: a value per row, and the weighted sum that the trainer turns into one mean.

B rows, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rec.config.registry import Registry

LOSSES = Registry("loss", "rec.losses")

Kind = Literal["binary", "multiclass", "regression", "any"]


@dataclass(frozen=True)
class LossSum:
    """A weighted mean that is still in two parts, so that it can be taken once over micro-batches and ranks.

    Attributes:
        numerator: sum of weight x loss over the rows, scalar, carries the gradient.
        denominator: sum of the weights, scalar, detached.
    """

    numerator: Tensor
    denominator: Tensor

    def mean(self, denominator: Tensor | None = None) -> Tensor:
        """Numerator over `denominator` (default: the own one); 0 where all weights are 0."""
        total = self.denominator if denominator is None else denominator
        # Both are 0 in a batch that has no row of a task space; 0 / tiny is 0 and has a finite gradient.
        return self.numerator / total.clamp(min=torch.finfo(total.dtype).tiny)


class Loss(ABC):
    """A loss of one task.

    Most losses only say what one row costs (`__call__`); `sums` weighs and adds. A loss that needs
    more of the model than its logits (auxiliary branches) overrides `sums`.

    Attributes:
        kind: what the logits mean, hence what is served: `binary` (logits [B], probs), `multiclass`
            (logits [B, C], probs), `regression` (the value itself). `any` does not read them, and stands beside
            another.
        prediction: name of a prediction that it reads in place of the logits; "" for the logits. Where the model
            gives it in training only, evaluations leave the loss out.
    """

    kind: ClassVar[Kind] = "binary"
    prediction: str = ""

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row.

        Args:
            logits: [B], or [B, C] for `multiclass`.
            labels: [B], float; class numbers for `multiclass`.

        Returns:
            [B]
        """

    def sums(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, *, predictions: Mapping[str, Tensor]
    ) -> LossSum:
        """Weighted sum of the rows' losses.

        Args:
            logits: the task's own, [B] or [B, C].
            labels: [B].
            weights: [B], or None for 1 each.
            predictions: everything the model returned, by name.
        """
        return weighted(self(upcast(logits), labels), weights)


def weighted(losses: Tensor, weights: Tensor | None) -> LossSum:
    """Weighted sum of `losses` [B] with `weights` [B] (None: 1 each)."""
    if weights is None:
        return LossSum(losses.sum(), losses.new_tensor(float(losses.shape[0])))
    weights = weights.to(losses.dtype)
    return LossSum((losses * weights).sum(), weights.sum().detach())


def upcast(logits: Tensor) -> Tensor:
    """Half precision to float32: exp and log of a loss lose too much in bf16 and fp16."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
