"""Adam and its row-wise form, on touched rows."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from rec.embedding.rules.base import EPS, RULES, Kernel, SparseRule, mean_square
from rec.protos import optimizer_pb2 as pb


@RULES.register(pb.FusedAdamOptimizer)
class Adam(SparseRule):
    """Lazy Adam (Kingma & Ba, ICLR 2015): moments of a row move only in steps that touch it.

    The bias correction counts all steps of the job, not those of the row: as torch.optim.SparseAdam,
    and as fbgemm on a GPU. Where every row is touched in every step it is torch.optim.Adam (with
    DECOUPLE: AdamW).
    """

    element_states: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    counts_steps = True
    bounded = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.beta1, self.beta2 = float(config.beta1), float(config.beta2)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        # Same order of operations as torch: (sqrt(v) / sqrt(bias2) + eps), step size lr / bias1.
        root = v.sqrt().div_(math.sqrt(1 - self.beta2**step)).add_(EPS)
        w.addcdiv_(m, root, value=-lr / (1 - self.beta1**step))

    def cuda_kernel(self, dim: int) -> Kernel | None:
        """ADAM, whose decay is decoupled."""
        if self.l2 or self.elapsed:
            return None
        arguments = {"beta1": self.beta1, "beta2": self.beta2, "eps": EPS, "weight_decay": self.decouple}
        return Kernel("ADAM", {**arguments, **self.clipping()}, self.element_states)


@RULES.register(pb.FusedPartialRowWiseAdamOptimizer)
class PartialRowWiseAdam(Adam):
    """Lazy Adam with one second moment a row: of the mean square of its gradient."""

    element_states = ("exp_avg",)
    row_states = ("exp_avg_sq",)

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.lerp_(g, 1 - self.beta1)
        v.mul_(self.beta2).add_(mean_square(g, dim), alpha=1 - self.beta2)
        root = v.sqrt().div_(math.sqrt(1 - self.beta2**step)).add_(EPS)
        w.addcdiv_(m, root.unsqueeze(1), value=-lr / (1 - self.beta1**step))

    def cuda_kernel(self, dim: int) -> Kernel | None:
        """PARTIAL_ROWWISE_ADAM."""
        kernel = super().cuda_kernel(dim)
        if kernel is None or dim % 4:
            return None
        return Kernel("PARTIAL_ROWWISE_ADAM", kernel.arguments, ("exp_avg", "exp_avg_sq"))
