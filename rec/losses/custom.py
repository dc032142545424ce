"""A loss of the user's own, by import path."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.imports import custom_kwargs, import_object
from rec.losses.base import LOSSES, Kind, Loss
from rec.protos.custom_pb2 import Custom


class CustomLoss(Loss):
    """Wraps any `f(logits, labels) -> [B]`, checking the shape that it returns."""

    kind: Kind  # type: ignore[misc]  # of the instance here: it is the wrapped object's

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], config: Custom, *, kind: Kind) -> None:
        self.function, self.kind, self._config = function, kind, config

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = self.function(logits, labels)
        if losses.shape != labels.shape[:1]:
            raise ConfigError(
                f"loss {self._config.class_path} returned shape {list(losses.shape)} for {labels.shape[0]} rows, "
                f"expected [{labels.shape[0]}]",
                self._config,
                "class_path",
                hint="return one value per row and leave the mean to the trainer",
            )
        return losses


def _bound(target: Any, config: Custom) -> Any:
    """A function with its `kwargs`; a wrong name among them is told before training begins."""
    kwargs = custom_kwargs(config)
    if not callable(target):
        return target
    try:
        signature = inspect.signature(target)
    except ValueError:  # a builtin that does not tell
        return functools.partial(target, **kwargs)
    try:
        signature.bind(None, None, **kwargs)
    except TypeError as err:
        raise ConfigError(
            f"loss {config.class_path} cannot be called as f(logits, labels"
            + "".join(f", {name}=..." for name in kwargs)
            + f"): {err}",
            config,
            "kwargs" if config.HasField("kwargs") else "class_path",
            hint=f"its signature is {signature}",
        ) from err
    return functools.partial(target, **kwargs)


def build_custom(config: Custom, *, num_class: int) -> Loss:
    """The loss that `config` names: a subclass of Loss, another class with `__call__`, or a function.

    A class is constructed with `kwargs`; a function is called with them beside logits and labels.
    An attribute `kind` ("binary", "multiclass", "regression") says what the logits mean; without it
    they are binary, or multiclass when the task has several classes.
    """
    target = import_object(config.class_path, config)
    is_class = isinstance(target, type)
    made = LOSSES.build(config) if is_class else _bound(target, config)
    if isinstance(made, Loss):
        return made
    if not callable(made):
        raise ConfigError(
            f"loss {config.class_path} cannot be called",
            config,
            "class_path",
            hint="name a function or a class with __call__(logits, labels)",
        )
    kind: Kind = getattr(target, "kind", "multiclass" if num_class > 1 else "binary")
    return CustomLoss(made, config, kind=kind)
