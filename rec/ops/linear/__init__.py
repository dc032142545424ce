"""x W^T + b, with a faster gradient and output at awkward widths on the CPU. See README.md."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from rec.ops.linear.aligned import ALIGNMENT, AlignedLinear

__all__ = ["linear"]


def linear(x_BI: Tensor, w_OI: Tensor, b_O: Tensor | None = None) -> Tensor:
    """An affine map of the last dimension; the values and gradients of `torch.nn.functional.linear`.

    Args:
        x_BI: [B, I], or any leading dimensions.
        w_OI: weight, [O, I].
        b_O: bias, [O].
    Returns:
        [B, O]
    """
    # Traced graphs get plain ATen; so does autocast, which casts inside F.linear.
    if isinstance(x_BI, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return F.linear(x_BI, w_OI, b_O)
    if (
        x_BI.dim() == 2
        and x_BI.requires_grad
        and x_BI.device.type == "cpu"
        and x_BI.dtype == torch.float32
        and x_BI.shape[1] % ALIGNMENT != 0
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    ):
        return AlignedLinear.apply(x_BI, w_OI, b_O)
    return F.linear(x_BI, w_OI, b_O)
