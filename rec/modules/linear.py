"""The affine map, with our choice of initial values."""

from __future__ import annotations

from torch import nn


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer that starts Xavier normal, with a bias of zero.

    PyTorch's own start, U(+-1/sqrt(in)) for the weights (a third of the variance) and for the bias,
    puts logits at +-0.1 before anything is learned; published CTR results (FuxiCTR, BARS) use this one.
    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether it adds a vector.
    """
    layer = nn.Linear(in_features, out_features, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
