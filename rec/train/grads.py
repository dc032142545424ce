"""What happens to dense gradients between backward and update: adding up over ranks, clipping, scaling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.train import ranks
from rec.train.errors import TrainingError

if TYPE_CHECKING:
    from rec.protos import train_pb2


def sum_over_ranks(params: Iterable[nn.Parameter]) -> None:
    """All-reduce the gradients as one flat tensor per dtype.

    Summed, as those of the tables are: each rank's loss is its share of the global one already.
    """
    grads = [p.grad for p in params if p.grad is not None]
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for g in grads:
        by_dtype.setdefault(g.dtype, []).append(g)
    for same in by_dtype.values():
        flat = torch.cat([g.reshape(-1) for g in same])
        dist.all_reduce(flat)
        parts = flat.split([g.numel() for g in same])
        torch._foreach_copy_(same, [part.view_as(g) for part, g in zip(parts, same, strict=True)])


class Clipping:
    """`grad_clipping`: by the norm of all dense gradients together, or each element by its value.

    Gradients are clipped after they were added up over ranks, so the norm is always that of the global
    gradient, `enable_global_grad_clip` or not. Tables are clipped by their own optimizer
    (`gradient_clipping`, `max_gradient` in sparse_optimizer), inside the look-up's backward.

    Args:
        config: the message, or None for no clipping.
    """

    def __init__(self, config: train_pb2.GradClipping | None) -> None:
        self.kind = "none"
        if config is None:
            return
        self.kind = config.clipping_type.lower()
        if self.kind not in {"none", "norm", "value"}:
            raise ConfigError(
                f"clipping_type {config.clipping_type!r}", config, "clipping_type", hint='use "norm", "value" or "none"'
            )
        if self.kind != "none" and not config.max_gradient > 0:
            raise ConfigError(f"max_gradient is {config.max_gradient:g}, expected more than 0", config, "max_gradient")
        self.max_gradient, self.norm_type = config.max_gradient, config.norm_type

    def __call__(self, params: Sequence[nn.Parameter]) -> Tensor | None:
        """Clip in place; the norm before clipping, where it was computed."""
        if self.kind == "norm":
            return nn.utils.clip_grad_norm_(params, self.max_gradient, self.norm_type, foreach=True)
        if self.kind == "value":
            nn.utils.clip_grad_value_(params, self.max_gradient, foreach=True)
        return None


class LossScaler:
    """Dynamic loss scale for FP16, as `torch.amp.GradScaler`, for a backward in two parts.

    Gradients are unscaled where the model ends and the look-up begins, before any table sees them:
    the tables are updated inside the look-up's backward, so it is too late afterwards. A step whose
    gradients overflow is left out altogether, for tables and dense parameters alike.

    Args:
        config: `grad_scaler`, or None for its defaults.
        device: where gradients live.
    """

    max_skips = 100

    def __init__(self, config: train_pb2.GradScaler, *, device: torch.device) -> None:
        for name, fine, expected in (
            ("init_scale", config.init_scale > 0, "more than 0"),
            ("growth_factor", config.growth_factor > 1, "more than 1"),
            ("backoff_factor", 0 < config.backoff_factor < 1, "between 0 and 1"),
            ("growth_interval", config.growth_interval > 0, "more than 0"),
        ):
            if not fine:
                raise ConfigError(f"{name} is {getattr(config, name):g}, expected {expected}", config, name)
        self.config = config
        self.device = device
        self.scale = config.init_scale
        self.good_steps = 0
        self.skipped = 0

    def unscale(self, grads: Sequence[Tensor]) -> bool:
        """Divide in place by the scale; whether all gradients of all ranks are finite."""
        found = torch.zeros(1, device=self.device)
        inverse = torch.full((1,), 1.0 / self.scale, device=self.device)
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for g in grads:
            by_dtype.setdefault(g.dtype, []).append(g)
        for same in by_dtype.values():
            torch._amp_foreach_non_finite_check_and_unscale_(same, found, inverse)
        if ranks.world() > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return not bool(found)

    def update(self, finite: bool, step: int) -> None:
        """Shrink the scale after an overflow, grow it after `growth_interval` good steps."""
        if not finite:
            self.scale *= self.config.backoff_factor
            self.good_steps = 0
            self.skipped += 1
            if self.skipped >= self.max_skips:
                raise TrainingError(
                    f"step {step}: FP16 gradients overflowed {self.skipped} times in a row, the loss scale is down to "
                    f'{self.scale:g}; use mixed_precision: "BF16", a smaller learning rate or grad_clipping'
                )
            return
        self.skipped = 0
        self.good_steps += 1
        if self.good_steps == self.config.growth_interval:
            self.scale *= self.config.growth_factor
            self.good_steps = 0

    def state(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"scale": self.scale, "good_steps": self.good_steps, "skipped": self.skipped}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.scale, self.good_steps, self.skipped = state["scale"], state["good_steps"], state["skipped"]
