"""Adadelta and RMSprop on touched rows; fbgemm has neither."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rec.embedding.rules.base import RULES, SparseRule
from rec.protos import optimizer_pb2 as pb


@RULES.register(pb.FusedAdadeltaOptimizer)
class Adadelta(SparseRule):
    """Steps in the units of past steps (Zeiler, arXiv:1212.5701), as torch.optim.Adadelta."""

    element_states = ("square_avg", "acc_delta")
    bounded = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rho, self.eps = float(config.rho), float(config.eps)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        square, acc = state["square_avg"], state["acc_delta"]
        square.mul_(self.rho).addcmul_(g, g, value=1 - self.rho)
        delta = acc.add(self.eps).sqrt_().div_(square.add(self.eps).sqrt_()).mul_(g)
        acc.mul_(self.rho).addcmul_(delta, delta, value=1 - self.rho)
        w.add_(delta, alpha=-lr)


@RULES.register(pb.FusedRMSpropOptimizer)
class RMSprop(SparseRule):
    """Gradient over the root of its running mean square, as torch.optim.RMSprop."""

    element_states = ("square_avg",)
    bounded = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.alpha, self.eps = float(config.alpha), float(config.eps)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        square = state["square_avg"]
        square.mul_(self.alpha).addcmul_(g, g, value=1 - self.alpha)
        w.addcdiv_(g, square.sqrt().add_(self.eps), value=-lr)
