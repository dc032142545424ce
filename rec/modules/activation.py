"""Activations by the name that a config gives them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rec.modules.norm import BatchNorm
from rec.ops.gelu import gelu

_CALL = re.compile(r"(?:(?:torch\.)?nn\.)?(?P<name>\w+)\s*(?:\((?P<args>[^()]*)\))?")


class Dice(nn.Module):
    """Data adaptive activation: p x + (1 - p) alpha x with p = sigmoid of the standardised x.

    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, Eq. 9;
    the standardisation has no learned scale, and eps 1e-9 as in the authors' code.

    Args:
        width: number of columns, each with its own alpha (0 at the start).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = BatchNorm(width, eps=1e-9, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Activate.

        Args:
            x_BD: [B, D].
        Returns:
            [B, D]
        """
        if self.training:
            standard_BD = self.bn(x_BD)
        else:
            # Spelt out: torch.jit.freeze folds a batch norm into the linear layer before it although
            # Dice reads that layer's output a second time (torch 2.13; differences of 0.3).
            standard_BD = (x_BD - self.bn.running_mean) * torch.rsqrt(self.bn.running_var + self.bn.eps)
        p = torch.sigmoid(standard_BD)
        return x_BD * (self.alpha + p * (1 - self.alpha))


class GELU(nn.GELU):
    """As PyTorch's; in training by `rec.ops.gelu`, which differs in the last bit."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training:
            return super().forward(x)  # what an export holds, bit by bit
        return gelu(x, approximate=self.approximate)


# Name -> (constructor given the width, keyword arguments that a config may set).
_ACTIVATIONS: Mapping[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    # In place: saves one [B, width] buffer a layer. What comes before (linear, norms) does not need its output.
    "ReLU": (lambda width: nn.ReLU(inplace=True), ()),
    "ReLU6": (lambda width: nn.ReLU6(inplace=True), ()),
    "LeakyReLU": (lambda width, **kw: nn.LeakyReLU(**kw), ("negative_slope",)),
    "PReLU": (lambda width, **kw: nn.PReLU(**kw), ("num_parameters", "init")),
    "ELU": (lambda width, **kw: nn.ELU(**kw), ("alpha",)),
    "SELU": (lambda width: nn.SELU(), ()),
    "GELU": (lambda width, **kw: GELU(**kw), ("approximate",)),
    "SiLU": (lambda width: nn.SiLU(), ()),
    "Mish": (lambda width: nn.Mish(), ()),
    "Softplus": (lambda width, **kw: nn.Softplus(**kw), ("beta", "threshold")),
    "Sigmoid": (lambda width: nn.Sigmoid(), ()),
    "Tanh": (lambda width: nn.Tanh(), ()),
    "Hardswish": (lambda width: nn.Hardswish(), ()),
    "Identity": (lambda width: nn.Identity(), ()),
    "Dice": (Dice, ()),
}


def activation(name: str, width: int) -> nn.Module:
    """The activation called `name`, for `width` columns.

    Args:
        name: "nn.ReLU" (prefix optional), "Dice", with literal arguments as in
            "nn.LeakyReLU(negative_slope=0.2)"; "" is none at all.
        width: number of columns of its input.
    Raises:
        ValueError: for a name or an argument that is not on the list.
    """
    text = name.strip()
    if not text:
        return nn.Identity()
    match = _CALL.fullmatch(text)
    if match is None or match["name"] not in _ACTIVATIONS:
        raise ValueError(f'activation "{name}" is unknown; known: {", ".join(_ACTIVATIONS)}')
    make, allowed = _ACTIVATIONS[match["name"]]
    return make(width, **_arguments(name, match["args"] or "", allowed))


def _arguments(name: str, text: str, allowed: tuple[str, ...]) -> dict[str, float | int | str]:
    """Keyword arguments written as in Python, literals only."""
    arguments = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = (s.strip() for s in part.partition("="))
        if not equals or key not in allowed:
            takes = ", ".join(f"{a}=..." for a in allowed) or "no arguments"
            raise ValueError(f'activation "{name}": "{part}" is not understood; it takes {takes}')
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise ValueError(f'activation "{name}": "{value}" is not a number or a quoted word') from None
    return arguments
