"""Exponential moving average of the weights (Polyak averaging with a forgetting factor)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Averages beside the weights: average = d * average + (1 - d) * weight after each step.

    d = min(decay, (1 + step) / (10 + step)): an early average is over the last tenth of the steps, so that
    it does not hold on to the initial weights.

    Args:
        tensors: what is averaged, by name: dense parameters, running statistics (those of the weights as they are
            would not fit averaged weights), and tables if asked for.
        decay: weight of the past.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, decay: float) -> None:
        self.tensors = {n: t.detach() for n, t in tensors.items() if t.is_floating_point()}
        self.decay = decay
        self.shadow: dict[str, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Begin at the weights as they are."""
        self.shadow = {n: t.clone() for n, t in self.tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: number of the step, from 1.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), list(self.tensors.values()), 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within: the network has the averages. Afterwards it has its weights back."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # By value: tables and fused optimizers hold on to the memory of the weights.
        for name, tensor in self.tensors.items():
            weights = tensor.clone()
            tensor.copy_(self.shadow[name])
            self.shadow[name].copy_(weights)

    def state(self) -> dict[str, Tensor]:
        """The averages by name, the very tensors in use."""
        return dict(self.shadow)
