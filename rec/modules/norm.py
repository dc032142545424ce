"""Batch normalisation that has an answer for a batch of one row; RMS normalisation in float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d; a training batch of one row is normalised by the running statistics, as at evaluation.

    One row has no variance: PyTorch raises there, which would end a run at a last short batch.
    That row still gives gradients; the running statistics do not move.
    """

    # Always tracked here.
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x_BD: Tensor) -> Tensor:
        """Normalise each column.

        Args:
            x_BD: [B, D].
        Returns:
            [B, D]
        """
        # `training` is read first: at evaluation, FX must not see a branch on a shape.
        if self.training and x_BD.shape[0] > 1:
            return super().forward(x_BD)
        return F.batch_norm(x_BD, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * gain, in float32 also under autocast.

    Zhang & Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Args:
        width: of the last dimension.
        eps: 1e-6 as in the models that use it.
    """

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return F.rms_norm(x.float(), self.normalized_shape, self.weight, self.eps)
