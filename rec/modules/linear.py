"""The affine map, with our choice of initial values."""

from __future__ import annotations

from torch import Tensor, nn

from rec.ops.linear import linear as affine

# Gain of the last layer behind a layer norm: its output starts near 0, and a sigmoid of it at 1/2.
SMALL_GAIN = 0.02


class Linear(nn.Linear):
    """A linear layer that starts Xavier normal, with a bias of zero.

    PyTorch's own start, U(+-1/sqrt(in)) for the weights (a third of the variance) and for the bias,
    puts logits at +-0.1 before anything is learned; published CTR results (FuxiCTR, BARS) use this one.
    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.

    Args:
        in_features, out_features: widths.
        bias: whether it adds a vector.
        gain: factor of the initial weights. Behind a layer norm, whose output has unit scale, a small one
            lets a logit start near 0.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, gain: float = 1.0) -> None:
        self.gain = gain  # read while the base class initialises
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the initial values."""
        nn.init.xavier_normal_(self.weight, gain=self.gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return affine(x, self.weight, self.bias)
