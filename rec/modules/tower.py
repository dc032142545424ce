"""One tower of a two-tower model."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.modules.mlp import MLP


class Tower(nn.Module):
    """An MLP, a linear map to the common space, and length 1 if asked for.

    Args:
        mlp: hidden layers.
        output_dim: width D of the common space; 0 leaves the linear map out.
        normalise: whether vectors are divided by their length.
    """

    def __init__(self, mlp: MLP, *, output_dim: int, normalise: bool) -> None:
        super().__init__()
        self.mlp = mlp
        self.output = Linear(mlp.out_features, output_dim) if output_dim else nn.Identity()
        self.out_features = output_dim or mlp.out_features
        self.normalise = normalise

    def forward(self, x: Tensor) -> Tensor:
        """[B, in] -> [B, D]."""
        x = self.output(self.mlp(x))
        return F.normalize(x, dim=1) if self.normalise else x
