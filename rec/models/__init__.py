"""Models: one file per architecture, found by the message that configures them. They never import each other."""

from rec.models.base import MODELS, Model

__all__ = ["MODELS", "Model"]
