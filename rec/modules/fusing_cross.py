"""Cross networks of DCNv3 (FCN): self-masked, without MLP."""

from __future__ import annotations

# B rows, F fields, H heads, D = F * width of a field in one head
from typing import Any

import torch
from torch import Tensor, nn

from rec.modules.dropout import Dropout
from rec.modules.linear import Linear


def chunked_heads(x_BFW: Tensor, num_heads: int) -> Tensor:
    """Cut each field into heads and each head in two: all first halves, then all second halves.

    The mask of `FusingCross` multiplies the second half of a layer's output, so that every field
    must have a part of itself in either half.

    Args:
        x_BFW: field embeddings, [B, F, W].
        num_heads: H; W / H must be even.
    Returns:
        [B, H, F * W / H]
    """
    heads_BFH2X = x_BFW.unflatten(2, (num_heads, 2, -1))
    return heads_BFH2X.permute(0, 2, 3, 1, 4).flatten(2)


class FusingCrossLayers(nn.Module):
    """The layers of one cross network.

    c = W x (no bias), normed; x' = base * ([c, c * relu(LN(c))] + b) + x. The base is x itself
    (exponential: order 2^l after l layers) or x_0 (linear: order l + 1).
    Li et al., "DCNv3"/"FCN", arXiv:2407.13349, Eq. 6-8; as in github.com/salmon1802/FCN.

    Args:
        width: D.
        num_heads: H.
        exponential: the base is x_l and not x_0.
        cross_num: number of layers.
        dropout_ratio: share of a layer's outputs zeroed in training.
        use_ln: layer normalisation before the mask's ReLU.
        use_bn: batch normalisation of c over the heads.
        bias_init_max: b starts uniform in [0, this].
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int = 1,
        exponential: bool,
        cross_num: int,
        dropout_ratio: float,
        use_ln: bool = True,
        use_bn: bool = False,
        bias_init_max: float = 1.0,
    ) -> None:
        super().__init__()
        self.exponential = exponential
        half = width // 2
        self.weights = nn.ModuleList(Linear(width, half, bias=False) for _ in range(cross_num))
        self.biases = nn.ParameterList(
            nn.Parameter(torch.empty(width).uniform_(0, bias_init_max)) for _ in range(cross_num)
        )
        # Statistics per head over rows and columns: one row is enough for a variance.
        self.bns = nn.ModuleList(nn.BatchNorm1d(num_heads) if use_bn else nn.Identity() for _ in range(cross_num))
        self.lns = nn.ModuleList(nn.LayerNorm(half) if use_ln else nn.Identity() for _ in range(cross_num))
        self.dropout = Dropout(dropout_ratio) if dropout_ratio > 0 else nn.Identity()

    def forward(self, x_BHD: Tensor) -> Tensor:
        """[B, H, D] -> the last layer's output, [B, H, D]."""
        base = x = x_BHD
        for weight, bias, bn, ln in zip(self.weights, self.biases, self.bns, self.lns, strict=True):
            c = bn(weight(x))
            mask = torch.relu(ln(c))
            if self.exponential:
                base = x
            x = self.dropout(torch.addcmul(x, base, torch.cat([c, c * mask], dim=-1) + bias))
        return x


class FusingCross(FusingCrossLayers):
    """One cross network and its logit head.

    Args:
        width: D.
        num_class: logits per row.
        settings: of `FusingCrossLayers`.
    """

    def __init__(self, width: int, *, num_class: int = 1, **settings: Any) -> None:
        super().__init__(width, **settings)
        self.head = Linear(width, num_class)

    def forward(self, x_BHD: Tensor) -> Tensor:
        """[B, H, D] -> logits, mean over the heads, [B, num_class]."""
        return self.head(super().forward(x_BHD)).mean(dim=1)
