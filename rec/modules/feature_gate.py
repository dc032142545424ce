"""The two parts of FinalMLP beside its streams: feature gates and bilinear fusion.

Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023, arXiv:2304.00902.
"""

from __future__ import annotations

# B rows, D features, X and Y widths of the streams, H heads, C classes
import torch
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.modules.mlp import MLP


class FeatureGate(nn.Module):
    """2 sigmoid(linear(hidden(context))) * x: Eq. 5-7.

    Args:
        width: D.
        hidden: layers between the context and the gate.
    """

    def __init__(self, width: int, hidden: MLP) -> None:
        super().__init__()
        self.hidden = hidden
        self.gate = Linear(hidden.out_features, width)

    def forward(self, x_BD: Tensor, context: Tensor) -> Tensor:
        """[B, D], [B, context width] -> [B, D]."""
        return x_BD * (2 * torch.sigmoid(self.gate(self.hidden(context))))


class ConstantGate(nn.Module):
    """2 sigmoid(g) * x with g learned: the feature gate that sees no context.

    The authors feed a learned vector, zero at first, to an MLP with zero biases: its ReLU never
    opens and all but the last bias stay where they are. That bias is g.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        return x_BD * (2 * torch.sigmoid(self.gate))


class BilinearFusion(nn.Module):
    """w_0 + w_1 x + w_2 y + sum over heads of x_h^T W_h y_h: Eq. 9 and 10.

    Args:
        x_features: X.
        y_features: Y.
        num_heads: H, dividing both.
        num_class: C.
    """

    def __init__(self, x_features: int, y_features: int, *, num_heads: int = 1, num_class: int = 1) -> None:
        super().__init__()
        if x_features % num_heads or y_features % num_heads:
            raise ValueError(
                f"num_heads {num_heads} does not divide the last widths of mlp1 and mlp2, {x_features} and {y_features}"
            )
        self.num_heads, self.num_class = num_heads, num_class
        self.x_width, self.y_width = x_features // num_heads, y_features // num_heads
        self.linear_x = Linear(x_features, num_class)
        self.linear_y = Linear(y_features, num_class, bias=False)
        self.weight = nn.Parameter(torch.empty(num_heads, self.x_width, num_class * self.y_width))
        # As the authors' xavier_normal_ of [H * x * y, C].
        nn.init.normal_(self.weight, std=(2.0 / (self.weight.numel() / num_class + num_class)) ** 0.5)

    def forward(self, x_BX: Tensor, y_BY: Tensor) -> Tensor:
        """[B, X], [B, Y] -> [B, C]."""
        x_HBX = x_BX.unflatten(1, (self.num_heads, self.x_width)).transpose(0, 1)
        xw_HBCY = torch.bmm(x_HBX, self.weight).unflatten(2, (self.num_class, self.y_width))
        y_HB1Y = y_BY.unflatten(1, (self.num_heads, self.y_width)).transpose(0, 1).unsqueeze(2)
        return self.linear_x(x_BX) + self.linear_y(y_BY) + (xw_HBCY * y_HB1Y).sum(dim=(0, 3))
