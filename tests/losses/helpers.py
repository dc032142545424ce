"""Losses of retrieval models as the tests of this folder make them."""

from __future__ import annotations

from google.protobuf import text_format

from rec.losses.retrieval import RETRIEVAL_LOSSES, RetrievalLoss
from rec.protos import loss_pb2

SOFTMAX = "softmax_cross_entropy {}"
CONTRASTIVE = [SOFTMAX, "info_nce {}", "binary_cross_entropy {}", "bpr_loss {}", "gbce_loss { num_items: 50 }"]


def build(text: str) -> RetrievalLoss:
    config = text_format.Parse(text, loss_pb2.LossConfig())
    return RETRIEVAL_LOSSES.build(getattr(config, config.WhichOneof("loss")))
