"""Learning rates as pure functions of (step, epoch).

Nothing here has state, so a resumed run needs nothing but its step and epoch to go on exactly.

Two meanings are chosen, where the vocabulary leaves room:

* warm-up has no point at which nothing is learnt: of `warmup_size` steps (or epochs) the k-th,
  k = 1, 2, ..., trains at `warmup_learning_rate + (lr - warmup_learning_rate) * k / warmup_size`.
  With the usual start of 0, counting from k = 0 would waste a whole epoch when `by_epoch` is set.
* a boundary of `schedule_sizes` is the number of steps (epochs) trained before the change.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rec.config.errors import ConfigError
from rec.protos import optimizer_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Horizon:
    """How long the training will be, where that is known: the default of a cosine's `T_max`."""

    steps: int | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None


@dataclass(frozen=True)
class Schedule:
    """A learning rate.

    Args:
        base: the optimizer's `lr`.
        curve: (base, t) -> learning rate, where t counts from 0.
        by_epoch: whether t counts epochs or steps.
        scale: factor of the whole curve (`lr_world_scaling`).
        text: how the schedule is called in reports.
    """

    base: float
    curve: Callable[[float, int], float] = field(repr=False)
    by_epoch: bool = False
    scale: float = 1.0
    text: str = "constant"

    def __call__(self, step: int, epoch: int) -> float:
        """The learning rate of a step.

        Args:
            step: optimizer steps done before this one.
            epoch: epochs completed before this one.
        """
        if self.base == 0:  # lr: 0 freezes, whatever the schedule says
            return 0.0
        return self.scale * self.curve(self.base, epoch if self.by_epoch else step)


def _constant(base: float, t: int) -> float:
    return base


def warm_up(start: float, size: int, after: Callable[[float, int], float]) -> Callable[[float, int], float]:
    """Linear from `start` to the base in `size` steps, then `after` counted from there."""

    def curve(base: float, t: int) -> float:
        if t < size:
            return start + (base - start) * (t + 1) / size
        return after(base, t - size)

    return curve


def exponential(size: int, factor: float, staircase: bool, low: float) -> Callable[[float, int], float]:
    """Staircase or smooth: base * factor ** (t / size), the exponent floored if `staircase`, not below `low`."""

    def curve(base: float, t: int) -> float:
        power = t // size if staircase else t / size
        return max(base * factor**power, low)

    return curve


def manual_step(sizes: list[int], rates: list[float], warmup: bool) -> Callable[[float, int], float]:
    """`rates[i]` once `sizes[i]` steps are done; before the first the base, or a line from it to `rates[0]`."""

    def curve(base: float, t: int) -> float:
        i = bisect_right(sizes, t)
        if i > 0:
            return rates[i - 1]
        return base + (rates[0] - base) * t / sizes[0] if warmup else base

    return curve


def cosine(t_max: int, low: float) -> Callable[[float, int], float]:
    """Half a cosine from the base at 0 to `low` at `t_max`, and `low` from there on."""

    def curve(base: float, t: int) -> float:
        return low + (base - low) * 0.5 * (1 + math.cos(math.pi * min(t, t_max) / t_max))

    return curve


def cosine_restarts(t_0: int, t_mult: int, low: float) -> Callable[[float, int], float]:
    """Half cosines of length t_0, t_0 * t_mult, ... (Loshchilov and Hutter, SGDR, ICLR 2017, Eq. 5)."""

    def curve(base: float, t: int) -> float:
        period = t_0
        if t_mult == 1:
            t %= t_0
        else:
            while t >= period:
                t -= period
                period *= t_mult
        return low + (base - low) * 0.5 * (1 + math.cos(math.pi * t / period))

    return curve


def build_schedule(config: Message, *, base: float, horizon: Horizon, scale: float = 1.0) -> Schedule:
    """The schedule of a `SparseOptimizer`, `DenseOptimizer` or `PartOptimizer`; constant when none is set.

    Args:
        config: the message with the oneof `learning_rate`.
        base: the optimizer's `lr`.
        horizon: length of the training.
        scale: factor of the learning rate.
    """
    which = config.WhichOneof("learning_rate")
    if which is None:
        return Schedule(base, _constant, scale=scale)
    msg = getattr(config, which)
    by_epoch = getattr(msg, "by_epoch", False)
    if getattr(msg, "every_step", False):
        msg, by_epoch = _in_steps(msg, horizon), False
    curve = _BUILDERS[type(msg)](msg, horizon)
    if getattr(msg, "warmup_size", 0):
        curve = warm_up(msg.warmup_learning_rate, msg.warmup_size, curve)
    elif "warmup_size" in msg.DESCRIPTOR.fields_by_name and msg.HasField("warmup_learning_rate"):
        log.warning("warmup_learning_rate has no effect without warmup_size")
    return Schedule(base, curve, by_epoch, scale, f"{which} per {'epoch' if by_epoch else 'step'}")


# Fields that count steps, or epochs with by_epoch.
_SIZES = ("decay_size", "warmup_size", "T_max", "T_0")


def _in_steps(msg: Message, horizon: Horizon) -> Message:
    """The schedule with `by_epoch` and `every_step` as one that counts steps."""
    if not msg.by_epoch:  # type: ignore[attr-defined]
        raise ConfigError(
            "every_step without by_epoch: the sizes are steps already", msg, "every_step", hint="add by_epoch: true"
        )
    if not horizon.steps_per_epoch:
        raise ConfigError(
            "the number of steps of an epoch is not known beforehand, so sizes in epochs are no number of steps",
            msg,
            "every_step",
            hint="give the sizes in steps, without by_epoch",
        )
    counted = type(msg)()
    counted.CopyFrom(msg)
    for name in _SIZES:
        if name in msg.DESCRIPTOR.fields_by_name and msg.HasField(name):
            setattr(counted, name, getattr(msg, name) * horizon.steps_per_epoch)
    counted.ClearField("by_epoch")
    counted.ClearField("every_step")
    return counted


def _build_constant(msg: pb.ConstantLR, horizon: Horizon) -> Callable[[float, int], float]:
    return _constant


def _build_exponential(msg: pb.ExponentialDecayLR, horizon: Horizon) -> Callable[[float, int], float]:
    return exponential(_positive(msg, "decay_size"), msg.decay_factor, msg.staircase, msg.min_learning_rate)


def _build_manual_step(msg: pb.ManualStepLR, horizon: Horizon) -> Callable[[float, int], float]:
    sizes, rates = list(msg.schedule_sizes), list(msg.learning_rates)
    if not sizes or len(sizes) != len(rates):
        raise ConfigError(
            f"{len(sizes)} schedule_sizes and {len(rates)} learning_rates",
            msg,
            "schedule_sizes",
            hint="give one learning rate for each boundary; the optimizer's lr is used before the first",
        )
    if sizes != sorted(set(sizes)) or sizes[0] == 0:
        raise ConfigError(f"schedule_sizes {sizes} must be positive and rise", msg, "schedule_sizes")
    return manual_step(sizes, rates, msg.warmup)


def _build_cosine(msg: pb.CosineAnnealingLR, horizon: Horizon) -> Callable[[float, int], float]:
    if msg.HasField("T_max"):
        return cosine(_positive(msg, "T_max"), msg.min_learning_rate)
    what = "epochs" if msg.by_epoch else "steps"
    total = horizon.epochs if msg.by_epoch else horizon.steps
    if total is None:
        raise ConfigError(
            f"the number of training {what} is not known beforehand, so T_max has no default",
            msg,
            "T_max",
            hint=f"set T_max to the {what} after warm-up, or train_config.num_{what}",
        )
    if total <= msg.warmup_size:
        raise ConfigError(
            f"warmup_size {msg.warmup_size} leaves nothing of the {total} {what} of the training for the cosine",
            msg,
            "warmup_size",
            hint=f"make it less than {total}, or set T_max",
        )
    return cosine(total - msg.warmup_size, msg.min_learning_rate)


def _build_restarts(msg: pb.CosineAnnealingWarmRestartsLR, horizon: Horizon) -> Callable[[float, int], float]:
    return cosine_restarts(_positive(msg, "T_0"), _positive(msg, "T_mult"), msg.min_learning_rate)


def _positive(msg: Message, name: str) -> int:
    value = getattr(msg, name)
    if value <= 0:
        raise ConfigError(f"{name} must be positive, got {value}", msg, name)
    return value


_BUILDERS: dict[type, Callable[..., Callable[[float, int], float]]] = {
    pb.ConstantLR: _build_constant,
    pb.ExponentialDecayLR: _build_exponential,
    pb.ManualStepLR: _build_manual_step,
    pb.CosineAnnealingLR: _build_cosine,
    pb.CosineAnnealingWarmRestartsLR: _build_restarts,
}
