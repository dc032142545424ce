"""The recurrence of a selective state space model over jagged rows. See README.md."""

from __future__ import annotations

# B rows, N steps of all rows, E channels, S states of a channel
import functools
import importlib.util

import torch
from torch import Tensor, fx

from rec.ops.dtypes import widened
from rec.ops.native import offsets_of
from rec.ops.scripted import graph_call
from rec.ops.selective_scan import exported, native, reference

__all__ = ["Inputs", "reference", "scan_with_states", "selective_scan"]

# u, delta, A, B, C, D
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def selective_scan(
    u_NE: Tensor, delta_NE: Tensor, A_ES: Tensor, B_NS: Tensor, C_NS: Tensor, D_E: Tensor, lengths_B: Tensor
) -> Tensor:
    """h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t^T and y_t = h_t C_t + D u_t, row by row, from h_0 = 0.

    Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752, Algorithm 2; as
    in its code, B is discretised as delta B. Half precision is taken to float32.

    Args:
        u_NE: inputs, jagged.
        delta_NE: step sizes, after the softplus.
        A_ES: negative.
        B_NS: how a step writes to the states.
        C_NS: how it reads them.
        D_E: weight of the input itself.
        lengths_B: steps of each row, which sum to N.

    Returns:
        [N, E], float32 or wider

    Raises:
        ValueError: the lengths do not sum to N (on the CPU; asking a GPU would wait for it).
    """
    # FX and script get PyTorch's own ops only, so that an exported model loads without us.
    if isinstance(u_NE, fx.Proxy):
        return graph_call(exported.selective_scan, u_NE, delta_NE, A_ES, B_NS, C_NS, D_E, lengths_B)
    inputs = _widened(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E)
    if torch.compiler.is_compiling():
        return exported.while_loop_scan(*inputs, lengths_B)
    if u_NE.is_cuda and inputs[0].dtype == torch.float32 and _has_triton():
        from rec.ops.selective_scan.triton import TritonScan

        return TritonScan.apply(*inputs, lengths_B)
    if not native.takes(*inputs, states=A_ES.shape[1]):
        return reference.selective_scan(*inputs, lengths_B)
    offsets = offsets_of(lengths_B, u_NE)
    if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
        return native.NativeScan.apply(*inputs, offsets)
    return native.forward(*inputs, offsets)


@torch.no_grad()
def scan_with_states(
    u_NE: Tensor,
    delta_NE: Tensor,
    A_ES: Tensor,
    B_NS: Tensor,
    C_NS: Tensor,
    D_E: Tensor,
    lengths_B: Tensor,
    initial_BES: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`selective_scan` from given states on, without gradients: for serving that goes on where it stopped.

    The arguments are its own, and the states before the first step (None is 0).

    Returns:
        Outputs [N, E], and the states after each row's last step [B, E, S].
    """
    inputs = _widened(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E)
    if initial_BES is None:
        initial_BES = inputs[0].new_zeros(lengths_B.shape[0], *A_ES.shape)
    if not native.takes(*inputs, initial_BES, states=A_ES.shape[1]):
        return reference.scan_with_states(*inputs, lengths_B, initial_BES)
    final_BES = torch.empty_like(initial_BES, memory_format=torch.contiguous_format)
    y_NE = native.forward(*inputs, offsets_of(lengths_B, u_NE), initial_BES.contiguous(), final_BES)
    return y_NE, final_BES


def _widened(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Inputs:
    return widened(u), widened(delta), widened(A), widened(B), widened(C), widened(D)


@functools.cache
def _has_triton() -> bool:
    # PyTorch for CUDA brings it, PyTorch for the CPU does not.
    return importlib.util.find_spec("triton") is not None
