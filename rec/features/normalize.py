"""The `normalizer` of dense values: "method=<name>,<key>=<number>,...", computed in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rec.config.names import suggest
from rec.features.arithmetic import Arithmetic

_KEYS: dict[str, dict[str, float | None]] = {
    "log10": {"threshold": 1e-10, "default": -10.0},
    "zscore": {"mean": None, "standard_deviation": None},
    "minmax": {"min": None, "max": None},
}
_METHODS = (*_KEYS, "expression")


class Normalizer:
    """A transform of dense values.

    - `method=log10,threshold=1e-10,default=-10`: log10(x) where x > threshold, else default.
    - `method=zscore,mean=0,standard_deviation=1`: (x - mean) / standard_deviation.
    - `method=minmax,min=0,max=1`: (x - min) / (max - min), not clipped.
    - `method=expression,expr=log1p(x)`: see `rec.features.arithmetic`.

    Args:
        text: the setting.

    Raises:
        ValueError: naming the part that is wrong and what would do.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        method, arguments = _split(text)
        if method == "expression":
            key, _, expr = (part.strip() for part in arguments.partition("="))
            if key != "expr" or not expr:
                raise ValueError("method=expression needs expr, e.g. method=expression,expr=log1p(x)")
            self._apply: _Transform = Arithmetic(expr)
        else:
            self._apply = _Affine(method, _numbers(method, arguments))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float64, the shape of `x`; NaN stays NaN."""
        x = np.asarray(x, np.float64)
        y = self._apply(x)
        # log10's default must not hide a missing value.
        return np.where(np.isnan(x), np.nan, y)


_Transform = Callable[[np.ndarray], np.ndarray]


class _Affine:
    """log10, zscore and minmax."""

    def __init__(self, method: str, numbers: dict[str, float]) -> None:
        self.method = method
        self.numbers = numbers
        if method == "zscore" and numbers["standard_deviation"] <= 0:
            raise ValueError("standard_deviation must be above 0")
        if method == "minmax" and numbers["max"] <= numbers["min"]:
            raise ValueError("max must be above min")
        if method == "log10" and numbers["threshold"] < 0:
            raise ValueError("threshold must not be negative")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        n = self.numbers
        if self.method == "log10":
            above = x > n["threshold"]
            return np.where(above, np.log10(np.where(above, x, 1.0)), n["default"])
        with np.errstate(over="ignore"):
            if self.method == "zscore":
                return (x - n["mean"]) / n["standard_deviation"]
            return (x - n["min"]) / (n["max"] - n["min"])


def _split(text: str) -> tuple[str, str]:
    head, _, rest = text.partition(",")
    key, equals, method = head.partition("=")
    if key.strip() != "method" or not equals:
        raise ValueError('it must start with "method=", e.g. method=zscore,mean=0,standard_deviation=1')
    method = method.strip()
    if method not in _METHODS:
        raise ValueError(f'unknown method "{method}"; {suggest(method, _METHODS, what="methods are")}')
    return method, rest.strip()


def _numbers(method: str, arguments: str) -> dict[str, float]:
    known = _KEYS[method]
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in arguments.split(","))):
        key, _, value = (p.strip() for p in part.partition("="))
        if key not in known:
            raise ValueError(f'method={method} has no "{key}"; {suggest(key, known, what="it takes")}')
        if key in found:
            raise ValueError(f'"{key}" stands twice')
        try:
            found[key] = float(value)
        except ValueError:
            raise ValueError(f'"{key}={value}" is no number') from None
        if not np.isfinite(found[key]):
            raise ValueError(f'"{key}={value}" is not finite')
    for key, default in known.items():
        if key not in found and default is None:
            raise ValueError(f"method={method} needs {key}, e.g. {key}=1")
        found.setdefault(key, default or 0.0)
    return found
