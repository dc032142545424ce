"""Sparse optimizers: how the touched rows of a table are updated. One file per family."""

from rec.embedding.rules.base import RULES, SparseRule

__all__ = ["RULES", "SparseRule"]
