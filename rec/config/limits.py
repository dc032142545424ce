"""Limits of numbers that mean the same in every message, told with their place before anything is built."""

from __future__ import annotations

from collections.abc import Callable

from rec.config.errors import ConfigError
from rec.config.proto import Proto

_SHARE = (lambda x: 0 <= x < 1, "expected within [0, 1)")
_COUNT = (lambda x: x >= 1, "expected 1 or more")
_LENGTH = (lambda x: x >= 0, "expected 0 or more")

# By name of the field, whatever its message.
LIMITS: dict[str, tuple[Callable[[float], bool], str]] = {
    "dropout_ratio": _SHARE,
    "deep_dropout_ratio": _SHARE,
    "shallow_dropout_ratio": _SHARE,
    "num_heads": _COUNT,
    "attention_dim": _COUNT,
    "num_class": _COUNT,
    "max_seq_length": _LENGTH,
    "bias_init_max": _LENGTH,
    "max_gradient": (lambda x: x > 0, "expected more than 0"),
}


def check_limits(msg: Proto) -> None:
    """Refuses a number of a message that is set and beyond its limits; messages below it are not looked at."""
    for field, value in msg.ListFields():
        if field.name not in LIMITS or field.message_type is not None:
            continue
        fits, expected = LIMITS[field.name]
        for number in value if field.is_repeated else [value]:
            if not fits(number):
                raise ConfigError(f'"{field.name}" of {msg.DESCRIPTOR.name} is {number:g}, {expected}', msg, field.name)
