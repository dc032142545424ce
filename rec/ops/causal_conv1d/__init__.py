"""A short causal convolution of each channel over jagged rows. See README.md."""

from __future__ import annotations

# B rows, N steps of all rows, E channels, K taps
import torch
from torch import Tensor, fx

from rec.ops.causal_conv1d import native
from rec.ops.causal_conv1d.reference import causal_conv1d_silu as reference
from rec.ops.dtypes import widened
from rec.ops.native import offsets_of

__all__ = ["causal_conv1d_silu", "reference"]


def causal_conv1d_silu(
    x_NE: Tensor, weight_EK: Tensor, bias_E: Tensor | None, lengths_B: Tensor, *, taps: int
) -> Tensor:
    """SiLU(b + sum over k of w_k x_(t-K+1+k)) for each channel; steps before a row's first count as 0.

    Args:
        x_NE: jagged steps; may be a part of the columns of a wider tensor.
        weight_EK: a filter for each channel, the newest step last.
        bias_E: added before the SiLU, or None.
        lengths_B: steps of each row, which sum to N.
        taps: K, which a traced graph cannot read from the weight.

    Returns:
        [N, E], float32 or wider

    Raises:
        ValueError: the lengths do not sum to N.
    """
    # Traced graphs get plain ATen; so do other devices and dtypes.
    if isinstance(x_NE, fx.Proxy) or torch.compiler.is_compiling():
        return reference(x_NE, weight_EK, bias_E, lengths_B, taps=taps)
    x_NE, weight_EK = widened(x_NE), widened(weight_EK)
    inputs = (x_NE, weight_EK) if bias_E is None else (x_NE, weight_EK, bias_E)
    if not native.takes(*inputs, taps=taps):
        return reference(x_NE, weight_EK, bias_E, lengths_B, taps=taps)
    offsets = offsets_of(lengths_B, x_NE)
    if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
        return native.NativeConv.apply(x_NE, weight_EK, bias_E, offsets)
    return native.forward(x_NE, weight_EK, bias_E, offsets)
