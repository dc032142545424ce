"""Losses: element-wise functions of logits and labels, each named by its message in `LossConfig`."""

from rec.losses.base import LOSSES, Loss, LossSum, upcast

__all__ = ["LOSSES", "Loss", "LossSum", "upcast"]
