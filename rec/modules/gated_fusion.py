"""A gate between two vectors of a row: how much of the one, how much of the other."""

from __future__ import annotations

# B rows, D width of either vector, G gates of a row (1 or D)
import torch
from torch import Tensor, nn

from rec.modules.dropout import Dropout
from rec.modules.linear import SMALL_GAIN, Linear


class Projection(nn.Sequential):
    """LN(Dropout(ReLU(W x + b))): a branch's output at a width and a scale that can be compared.

    Without the norm the gate's number means nothing where one branch is larger than the other.

    Args:
        in_features: width of the branch's output.
        width: D.
        dropout_ratio: share of the outputs zeroed in training.
    """

    def __init__(self, in_features: int, width: int, *, dropout_ratio: float = 0.0) -> None:
        if width < 1:
            raise ValueError(f"width {width} must be positive")
        super().__init__(Linear(in_features, width), nn.ReLU(), _dropout(dropout_ratio), nn.LayerNorm(width))


class GatedFusion(nn.Module):
    """f = g s + (1 - g) r with g = sigmoid(W2 Dropout(ReLU(W1 [s, r]))): g is the weight of s.

    Args:
        width: D, of s and of r.
        gate: "SCALAR", one weight a row, or "VECTOR", one for each of the D columns.
        empty_history: what a row gets that has nothing on the side of r: "STATIC" is g = 1 exactly;
            "GATE_INPUT" lets the gate decide, told by one more input that is 1 where there is a history.
        dropout_ratio: share of the gate's hidden units zeroed in training.
    """

    def __init__(
        self, width: int, *, gate: str = "SCALAR", empty_history: str = "STATIC", dropout_ratio: float = 0.1
    ) -> None:
        super().__init__()
        self.told = empty_history == "GATE_INPUT"
        self.scalar = gate == "SCALAR"
        self.hidden = Linear(2 * width + int(self.told), width)
        self.dropout = _dropout(dropout_ratio)
        self.gate = Linear(width, 1 if self.scalar else width, gain=SMALL_GAIN)

    def forward(self, s_BD: Tensor, r_BD: Tensor, has_history_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mix.

        Args:
            s_BD: the static vector, finite.
            r_BD: the sequential vector, finite also for a row without history.
            has_history_B: bool [B].

        Returns:
            f [B, D], and g in [0, 1]: [B] or, of a vector gate, [B, D]
        """
        known_B1 = has_history_B.unsqueeze(1)
        inputs = [s_BD, r_BD, known_B1.to(s_BD.dtype)] if self.told else [s_BD, r_BD]
        hidden_BD = self.dropout(torch.relu(self.hidden(torch.cat(inputs, dim=1))))
        g_BG = torch.sigmoid(self.gate(hidden_BD).float())
        if not self.told:
            g_BG = torch.where(known_B1, g_BG, torch.ones_like(g_BG))
        # In this form a gate of exactly 1 or 0 gives exactly one of the two.
        mixed_BD = g_BG * s_BD + (1 - g_BG) * r_BD
        return mixed_BD, g_BG.squeeze(1) if self.scalar else g_BG


def _dropout(ratio: float) -> nn.Module:
    if not 0 <= ratio < 1:
        raise ValueError(f"dropout_ratio {ratio} must lie in [0, 1)")
    return Dropout(ratio) if ratio > 0 else nn.Identity()
