"""Mask blocks: products of features by masks that each row makes for itself."""

from __future__ import annotations

# B rows, F fields, D width of all fields
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.modules.activation import activation as activation_of
from rec.modules.dropout import Dropout
from rec.modules.linear import Linear


class MaskBlock(nn.Module):
    """activation(LN(W (mask * h))), mask = W2 ReLU(W1 fields): Eq. 4 and 9 of MaskNet.

    Wang et al., "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
    Instance-Guided Mask", DLP-KDD 2021, arXiv:2102.07619.

    Args:
        in_features: width of h.
        mask_features: width of the fields.
        hidden_dim: width of the output.
        reduction_ratio: width of the mask's hidden layer over in_features.
        aggregation_dim: width of the mask's hidden layer; 0 takes reduction_ratio.
        use_ln: layer normalisation before the activation.
        activation: of the output.
        dropout_ratio: share of the outputs zeroed in training.
    """

    def __init__(
        self,
        in_features: int,
        mask_features: int,
        *,
        hidden_dim: int,
        reduction_ratio: float = 1.0,
        aggregation_dim: int = 0,
        use_ln: bool = True,
        activation: str = "nn.ReLU",
        dropout_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        inner = aggregation_dim or int(in_features * reduction_ratio)
        if inner < 1:
            raise ValueError(f"reduction_ratio {reduction_ratio} of {in_features} leaves no hidden unit")
        self.mask = nn.Sequential(Linear(mask_features, inner), nn.ReLU(inplace=True), Linear(inner, in_features))
        # No bias, as in the paper: the norm has one.
        hidden: list[nn.Module] = [Linear(in_features, hidden_dim, bias=not use_ln)]
        if use_ln:
            hidden.append(nn.LayerNorm(hidden_dim))
        hidden.append(activation_of(activation, hidden_dim))
        if dropout_ratio > 0:
            hidden.append(Dropout(dropout_ratio))
        self.hidden = nn.Sequential(*hidden)

    def forward(self, h: Tensor, fields_BD: Tensor) -> Tensor:
        """[B, in_features], [B, mask_features] -> [B, hidden_dim]."""
        return self.hidden(self.mask(fields_BD) * h)


class FieldNorm(nn.Module):
    """Layer normalisation of each field by itself, with a scale and a shift of its own.

    Args:
        widths: of the fields, in order. A field of width 1 passes unchanged: normed, it would be 0.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = list(widths)
        # Runs of equal width are normed in one call.
        self.runs: list[tuple[int, int]] = []
        for width in self.widths:
            if self.runs and self.runs[-1][1] == width:
                self.runs[-1] = (self.runs[-1][0] + 1, width)
            else:
                self.runs.append((1, width))
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(n, w)) for n, w in self.runs if w > 1)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n, w)) for n, w in self.runs if w > 1)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        done = []
        affine = iter(zip(self.weights, self.biases, strict=True))
        start = 0
        for num, width in self.runs:
            part = x_BD.narrow(1, start, num * width)
            start += num * width
            if width > 1:
                weight, bias = next(affine)
                normed = F.layer_norm(part.unflatten(1, (num, width)), (width,))
                part = torch.addcmul(bias, normed, weight).flatten(1)
            done.append(part)
        return done[0] if len(done) == 1 else torch.cat(done, dim=1)
