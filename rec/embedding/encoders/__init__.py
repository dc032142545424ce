"""Sequence encoders: the steps of a sequence group to one vector a row. One file each.

An encoder of your own is a subclass of `SequenceEncoder`, named in `custom_encoder`.
"""

from rec.embedding.encoders.base import ENCODERS, SequenceEncoder, build_encoder, no_query

__all__ = ["ENCODERS", "SequenceEncoder", "build_encoder", "no_query"]
