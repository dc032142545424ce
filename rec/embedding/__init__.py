"""From ids and dense values to feature groups; the only home of torchrec modules and sharding."""

from rec.embedding.encoders import ENCODERS, SequenceEncoder
from rec.embedding.group import EmbeddingGroup
from rec.embedding.shapes import GroupShape, GroupShapes

__all__ = ["ENCODERS", "EmbeddingGroup", "GroupShape", "GroupShapes", "SequenceEncoder"]
