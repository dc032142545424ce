"""SGD, Adagrad and row-wise Adagrad: those that fbgemm has on the CPU too."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rec.config.errors import ConfigError
from rec.embedding.rules.base import EPS, RULES, Kernel, SparseRule, mean_square
from rec.protos import optimizer_pb2 as pb


@RULES.register(pb.FusedSGDOptimizer)
class SGD(SparseRule):
    """w -= lr g."""

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        w.add_(g, alpha=-lr)

    def cpu_kernel(self, dim: int) -> Kernel | None:
        """EXACT_SGD."""
        return None if self.decays else Kernel("EXACT_SGD", self.clipping())


@RULES.register(pb.FusedAdagradOptimizer)
class Adagrad(SparseRule):
    """s += g^2; w -= lr g / (sqrt(s) + eps). Duchi et al., JMLR 2011."""

    element_states = ("sum",)
    bounded = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.start = float(config.initial_accumulator_value)
        if self.start < 0:
            raise ConfigError(
                f"initial_accumulator_value {self.start} must not be negative", config, "initial_accumulator_value"
            )

    def initial(self, name: str) -> float:
        """The accumulator's start."""
        return self.start if name == "sum" else 0.0

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        state["sum"].addcmul_(g, g)
        w.addcdiv_(g, state["sum"].sqrt().add_(EPS), value=-lr)

    def cpu_kernel(self, dim: int) -> Kernel | None:
        """EXACT_ADAGRAD."""
        return None if self.decays else Kernel("EXACT_ADAGRAD", {"eps": EPS, **self.clipping()}, ("sum",))


@RULES.register(pb.FusedRowWiseAdagradOptimizer)
class RowWiseAdagrad(SparseRule):
    """Adagrad with one accumulator a row, of the mean square of its gradient."""

    row_states = ("sum",)
    bounded = True

    def update(self, w: Tensor, g: Tensor, state: dict[str, Tensor], *, lr: float, step: int, dim: int) -> None:
        """One step."""
        state["sum"].add_(mean_square(g, dim))
        w.addcdiv_(g, state["sum"].sqrt().add_(EPS).unsqueeze(1), value=-lr)

    def cpu_kernel(self, dim: int) -> Kernel | None:
        """EXACT_ROWWISE_ADAGRAD; of a padded table it would count the padding in the mean."""
        if self.decays or dim % 4:
            return None
        return Kernel("EXACT_ROWWISE_ADAGRAD", {"eps": EPS, **self.clipping()}, ("sum",))
