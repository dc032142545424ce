"""Fixed weights and a short summary of an outcome, for numbers taken from other people's code."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fill(module: nn.Module) -> nn.Module:
    """Set every parameter to a fixed wave, different for each; in float64 the same anywhere."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            steps = torch.arange(1, 1 + parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.4 * torch.sin(steps * (0.9 + 0.13 * i))).reshape(parameter.shape))
    return module


def wave(*shape: int) -> Tensor:
    """A fixed float64 input that asks for its gradient."""
    steps = torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float64)
    return torch.cos(0.7 * steps).reshape(shape).requires_grad_()


def outcome(output: Tensor, gradient: Tensor) -> list[float]:
    """Four numbers that any change of an output or of its input's gradient moves."""
    numbers = []
    for tensor in (output, gradient):
        flat = tensor.detach().flatten()
        weights = torch.linspace(0.5, 1.5, flat.numel(), dtype=flat.dtype)
        numbers += [(flat * weights).sum().item(), flat.square().sum().item()]
    return numbers
