"""Serving: raw rows to scores, from an export folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rec.serve.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    # On demand: readers take the encoder of an export from this package before torch is loaded.
    if name in __all__:
        from rec.serve import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
