"""Exponential moving average of the dense parameters (Polyak averaging with a forgetting factor)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages beside the parameters: average = decay * average + (1 - decay) * parameter after each step.

    Tables are left out: a row is averaged by what it meets anyway, and a copy would double the memory.

    Args:
        params: dense parameters by name.
        decay: weight of the past.
    """

    def __init__(self, params: Mapping[str, nn.Parameter], *, decay: float) -> None:
        self.params = dict(params)
        self.decay = decay
        self.shadow: dict[str, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Begin at the parameters as they are."""
        self.shadow = {n: p.detach().clone() for n, p in self.params.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        torch._foreach_lerp_(list(self.shadow.values()), [p.data for p in self.params.values()], 1.0 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within: the network has the averages. Afterwards it has its parameters back."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, p in self.params.items():
            p.data, self.shadow[name] = self.shadow[name], p.data

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name, the very tensors in use."""
        return dict(self.shadow)
