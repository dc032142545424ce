"""Limits of numbers that mean the same in every message, told with their place before anything is built."""

from __future__ import annotations

from collections.abc import Callable

from rec.config.errors import ConfigError
from rec.config.proto import Proto

_SHARE = (lambda x: 0 <= x < 1, "expected within [0, 1)")
_COUNT = (lambda x: x >= 1, "expected 1 or more")
_LENGTH = (lambda x: x >= 0, "expected 0 or more")
_POSITIVE = (lambda x: x > 0, "expected more than 0")

# By name of the field, or of message and field where others call something else the same.
LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "dropout_ratio": _SHARE,
    "deep_dropout_ratio": _SHARE,
    "shallow_dropout_ratio": _SHARE,
    "num_heads": _COUNT,
    "attention_dim": _COUNT,
    "num_class": _COUNT,
    "max_seq_length": _LENGTH,
    "bias_init_max": _LENGTH,
    "max_gradient": _POSITIVE,
    "norm_type": _POSITIVE,
    "beta1": _SHARE,
    "beta2": _SHARE,
    "rho": _SHARE,
    "RMSpropOptimizer.alpha": _SHARE,
    "FusedRMSpropOptimizer.alpha": _SHARE,
    "momentum": _LENGTH,
    "dampening": _LENGTH,
    "eps": _LENGTH,
    "eta": _LENGTH,
    "decay_factor": _LENGTH,
    "min_learning_rate": _LENGTH,
    "warmup_learning_rate": _LENGTH,
    "CrossBatchMemory.size": _COUNT,
    "logq_strength": _POSITIVE,
}


def check_limits(msg: Proto) -> None:
    """Refuses a number of a message that is set and beyond its limits; messages below it are not looked at."""
    for field, value in msg.ListFields():
        limit = LIMITS.get(f"{msg.DESCRIPTOR.name}.{field.name}") or LIMITS.get(field.name)
        if limit is None or field.message_type is not None:
            continue
        fits, expected = limit
        for number in value if field.is_repeated else [value]:
            if not fits(number):
                raise ConfigError(f'"{field.name}" of {msg.DESCRIPTOR.name} is {number:g}, {expected}', msg, field.name)
