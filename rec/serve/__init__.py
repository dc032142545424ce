"""Serving: raw rows to scores, from an export folder alone."""

from rec.serve.predictor import Predictor

__all__ = ["Predictor"]
