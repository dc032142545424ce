"""Multi-layer perceptron: most of the arithmetic of a CTR model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rec.modules.activation import activation as activation_of
from rec.modules.dropout import Dropout
from rec.modules.linear import Linear
from rec.modules.norm import BatchNorm


class MLP(nn.Module):
    """A stack of linear -> norm -> activation -> dropout, the last layer included.

    No layer at all (`hidden_units` empty) is the identity.

    Args:
        in_features: width of the input.
        hidden_units: width of each layer.
        dropout_ratio: share of a layer's outputs zeroed in training: one number for all layers, or
            one a layer; none is no dropout.
        activation: as `rec.modules.activation.activation` reads it.
        use_bn: batch normalisation before the activation. The linear layer then has no bias of its own.
        bias: whether linear layers add a vector.
        use_ln: layer normalisation before the activation.
    Raises:
        ValueError: for settings that contradict each other; it begins with the argument's name.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hidden_units: Sequence[int] = (),
        dropout_ratio: Sequence[float] = (),
        activation: str = "nn.ReLU",
        use_bn: bool = False,
        bias: bool = True,
        use_ln: bool = False,
    ) -> None:
        super().__init__()
        if use_bn and use_ln:
            raise ValueError("use_ln and use_bn are both set; keep one")
        if any(width < 1 for width in hidden_units):
            raise ValueError(f"hidden_units {list(hidden_units)} must all be positive")
        layers: list[nn.Module] = []
        width = in_features
        for units, ratio in zip(hidden_units, _ratios(dropout_ratio, len(hidden_units)), strict=True):
            # A bias before batch norm is subtracted again: it would be a parameter without a gradient.
            layers.append(Linear(width, units, bias=bias and not use_bn))
            if use_bn:
                layers.append(BatchNorm(units))
            if use_ln:
                layers.append(nn.LayerNorm(units))
            if activation.strip():
                layers.append(activation_of(activation, units))
            if ratio > 0:
                layers.append(Dropout(ratio))
            width = units
        self.layers = nn.Sequential(*layers)
        self.out_features = width

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers.

        Args:
            x: [B, in_features]; without batch norm and Dice, any leading dimensions.
        Returns:
            [B, out_features]
        """
        return self.layers(x)


def _ratios(dropout_ratio: Sequence[float], layers: int) -> list[float]:
    """One dropout ratio a layer."""
    ratios = list(dropout_ratio) or [0.0]
    if len(ratios) == 1:
        ratios = ratios * layers
    if len(ratios) != layers:
        raise ValueError(f"dropout_ratio has {len(ratios)} values for {layers} hidden_units; give one, or one a layer")
    if any(not 0 <= r < 1 for r in ratios):
        raise ValueError(f"dropout_ratio {ratios} must lie in [0, 1)")
    return ratios
