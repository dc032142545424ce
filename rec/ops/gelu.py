"""GELU whose memory does not grow with the number of different lengths.

On a CPU PyTorch takes GELU from oneDNN, which keeps up to 1024 compiled primitives, one for each shape. Jagged steps
have another number in every batch, and what is kept for each pins the heap between the large buffers: an MLP of widths
16-64-16 over some 70,000 steps grew from 260 to 1,080 MB in 60 steps of training, and stays at 320 MB with this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """X Phi(x), Phi the distribution function of the normal; values and gradients of `torch.nn.functional.gelu`.

    Hendrycks & Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415.

    Args:
        x: any shape.
        approximate: "none", or "tanh" for the approximation by a tanh.
    """
    if isinstance(x, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return F.gelu(x, approximate=approximate)
    if x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled():
        return _PlainGELU.apply(x, approximate)
    return F.gelu(x, approximate=approximate)


class _PlainGELU(Function):
    """PyTorch's own kernels; the switch has to be off in the backward, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.approximate = approximate
        with _without_onednn():
            return F.gelu(x, approximate=approximate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        with _without_onednn():
            return torch.ops.aten.gelu_backward(grad, x, approximate=ctx.approximate), None


@contextmanager
def _without_onednn() -> Iterator[None]:
    # Not torch.backends.mkldnn.flags: it sets the TF32 switch, too, and warns that there is none.
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before  # type: ignore[assignment]
