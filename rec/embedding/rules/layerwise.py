"""LAMB and LARS: the step of a row is scaled to the norm of the row."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rec.embedding.rules.adam import Adam
from rec.embedding.rules.base import EPS, RULES, Kernel, SparseRule, mean_square
from rec.protos import optimizer_pb2 as pb

# Trust coefficient of LARS; fbgemm's.
ETA = 0.001


@RULES.register(pb.FusedLAMBOptimizer)
class LAMB(Adam):
    """Adam's direction with the length of the row (You et al., ICLR 2020), each row a layer of its own.

    w -= lr |w| / |r| r, r = m^ / (sqrt(v^) + eps) + weight_decay w (DECOUPLE). The ratio is 1 where a
    norm is 0, so that a row of zeros can leave zero.
    """

    bounded = False  # its own step() scales by the norm of the row

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        root = v.sqrt().div_(math.sqrt(1 - self.beta2**step)).add_(EPS)
        self._scaled(w, m / (1 - self.beta1**step) / root, lr)

    def step(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """Update; decoupled decay is part of the direction, under the trust ratio."""
        if self.l2:
            g.add_(w, alpha=self.l2)
        self.update(w, g, state, lr=lr, step=step, dim=dim)

    def _scaled(self, w: Tensor, r: Tensor, lr: float) -> None:
        if self.decouple:
            r.add_(w, alpha=self.decouple)
        w_norm, r_norm = w.norm(dim=1, keepdim=True), r.norm(dim=1, keepdim=True)
        one = torch.ones_like(w_norm)
        ratio = torch.where((w_norm > 0) & (r_norm > 0), w_norm / r_norm, one)
        w.addcmul_(r, ratio, value=-lr)

    def cuda_kernel(self, dim: int) -> Kernel | None:
        """LAMB."""
        kernel = super().cuda_kernel(dim)
        return kernel and Kernel("LAMB", kernel.arguments, kernel.states)


@RULES.register(pb.FusedPartialRowWiseLAMBOptimizer)
class PartialRowWiseLAMB(LAMB):
    """LAMB with one second moment a row."""

    element_states = ("exp_avg",)
    row_states = ("exp_avg_sq",)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).add_(mean_square(g, dim), alpha=1 - self.beta2)
        root = v.sqrt().div_(math.sqrt(1 - self.beta2**step)).add_(EPS)
        self._scaled(w, m / (1 - self.beta1**step) / root.unsqueeze(1), lr)

    def cuda_kernel(self, dim: int) -> Kernel | None:
        """PARTIAL_ROWWISE_LAMB."""
        kernel = super().cuda_kernel(dim)
        if kernel is None or dim % 4:
            return None
        return Kernel("PARTIAL_ROWWISE_LAMB", kernel.arguments, ("exp_avg", "exp_avg_sq"))


@RULES.register(pb.FusedLarsSGDOptimizer)
class LarsSGD(SparseRule):
    """SGD with momentum, its rate scaled by the norms of the row (You et al., arXiv:1708.03888).

    b = momentum b + lr eta |w| / (|g| + weight_decay |w|) (g + weight_decay w); w -= b, eta 0.001, each row
    a layer of its own. Where a norm is 0 the ratio is 1.
    """

    element_states = ("momentum",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.momentum = float(config.momentum)

    def step(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """Update; L2 decay is part of the formula."""
        if self.decouple:
            w.mul_(1 - lr * self.decouple)
        self.update(w, g, state, lr=lr, step=step, dim=dim)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        w_norm, g_norm = w.norm(dim=1, keepdim=True), g.norm(dim=1, keepdim=True)
        below = g_norm + self.l2 * w_norm
        ratio = torch.where((w_norm > 0) & (below > 0), ETA * w_norm / below, torch.ones_like(below))
        if self.l2:
            g.add_(w, alpha=self.l2)
        state["momentum"].mul_(self.momentum).addcmul_(g, ratio, value=lr)
        w.sub_(state["momentum"])

    def cuda_kernel(self, dim: int) -> Kernel | None:
        """LARS_SGD."""
        if self.decouple or self.all_rows:
            return None
        arguments = {"momentum": self.momentum, "eta": ETA, "weight_decay": self.l2}
        return Kernel("LARS_SGD", {**arguments, **self.clipping()}, ("momentum",))
