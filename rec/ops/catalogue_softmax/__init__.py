"""Softmax cross-entropy over a whole table, without a score for every pair of row and item in memory."""

from rec.ops.catalogue_softmax.chunked import catalogue_cross_entropy, rank_in_catalogue

__all__ = ["catalogue_cross_entropy", "rank_in_catalogue"]
