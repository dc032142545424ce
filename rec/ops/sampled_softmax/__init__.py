"""Softmax cross-entropy of positives against shared negatives, without the [B, C] matrix of logits in memory."""

from __future__ import annotations

from torch import Tensor

from rec.ops.sampled_softmax.fused import SampledSoftmaxSum
from rec.ops.sampled_softmax.reference import negative_logits

__all__ = ["negative_logits", "sampled_softmax_sum"]


def sampled_softmax_sum(
    own_BK: Tensor,
    user_BD: Tensor,
    shared_CD: Tensor,
    offset_C: Tensor | None,
    row_P: Tensor,
    column_P: Tensor,
    weight_B: Tensor,
    fixed_MD: Tensor | None = None,
) -> Tensor:
    """Sum over rows of weight * -log softmax(own, user @ [shared, fixed]^T - offset)[0]; see `reference`. Float32.

    Fixed negatives, weights, offsets and masks get no gradient; there is no second derivative.
    """
    return SampledSoftmaxSum.apply(own_BK, user_BD, shared_CD, offset_C, row_P, column_P, weight_B, fixed_MD)
