"""Our layers against other people's code, which is not required: `python -m tools.agreement`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Agreement:
    """What one comparison found.

    Attributes:
        layer: ours.
        reference: theirs, with its version.
        shape: of the comparison, in words.
        output: largest difference of an output.
        gradient: largest difference of a gradient, over the largest number of that gradient.
        outcome: of theirs, for a golden test (tests/modules/golden.py).
    """

    layer: str
    reference: str
    shape: str
    output: float
    gradient: float
    outcome: tuple[float, ...] = ()


def largest(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of two tensors."""
    return (ours - theirs).abs().max().item() if ours.numel() else 0.0


def largest_gradient(ours: nn.Module, theirs: nn.Module, *inputs: tuple[Tensor, Tensor]) -> float:
    """Largest difference of the gradients of all parameters and inputs, relative to the gradient's largest number.

    Args:
        ours: has its gradients.
        theirs: has parameters of the same names.
        inputs: pairs of inputs with their gradients.
    """
    named = dict(theirs.named_parameters())
    pairs = [(p, named[name]) for name, p in ours.named_parameters()]
    worst = 0.0
    for a, b in [*pairs, *inputs]:
        assert a.grad is not None
        assert b.grad is not None
        worst = max(worst, largest(a.grad, b.grad) / max(b.grad.abs().max().item(), torch.finfo(b.dtype).tiny))
    return worst
