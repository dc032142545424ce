"""The selective scan by the kernels in C, float32 on the CPU."""

from __future__ import annotations

# B rows, N steps of all rows, E channels, S states of a channel, P pieces
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops import native

MOST_STATES = 256  # MAX_STATES of native.c


def takes(*tensors: Tensor, states: int) -> bool:
    """Whether the kernels can do it."""
    return (
        all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and states <= MOST_STATES
        and native.available()
    )


def _sizes(u_NE: Tensor, A_ES: Tensor) -> tuple[int, int]:
    return u_NE.shape[1], A_ES.shape[1]


def _scanned(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> tuple[int | Tensor | None, ...]:
    """Arguments that all kernels share, in their order."""
    return (u, u.stride(0), delta, delta.stride(0), A, B, B.stride(0), C, C.stride(0), D)


def forward(
    u_NE: Tensor,
    delta_NE: Tensor,
    A_ES: Tensor,
    B_NS: Tensor,
    C_NS: Tensor,
    D_E: Tensor,
    offsets: Tensor,
    initial_BES: Tensor | None = None,
    final_BES: Tensor | None = None,
) -> Tensor:
    """Outputs [N, E]; `final_BES` is filled with the states after the last steps."""
    E, S = _sizes(u_NE, A_ES)
    u, delta, B, C = (native.row_major(t) for t in (u_NE, delta_NE, B_NS, C_NS))
    A, D = A_ES.contiguous(), D_E.contiguous()
    y_NE = u_NE.new_empty(u_NE.shape)
    arguments = (offsets, *_scanned(u, delta, A, B, C, D), initial_BES, y_NE, final_BES)

    def piece(_: int, first: int, last: int) -> None:
        native.call("rec_scan_forward", first, last, E, S, *arguments)

    native.in_parts(piece, native.pieces_of(offsets, E))
    return y_NE


class NativeScan(Function):
    """Keeps the inputs only: the backward goes through a row's states again, 64 steps at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        u_NE: Tensor,
        delta_NE: Tensor,
        A_ES: Tensor,
        B_NS: Tensor,
        C_NS: Tensor,
        D_E: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        """[N, E]."""
        ctx.save_for_backward(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E, offsets)
        return forward(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NE: Tensor) -> tuple[Tensor | None, ...]:
        """[N, E] -> gradients of all inputs."""
        *inputs, offsets = ctx.saved_tensors
        E, S = _sizes(inputs[0], inputs[2])
        pieces = native.pieces_of(offsets, E)
        u, delta, B, C = (native.row_major(inputs[i]) for i in (0, 1, 3, 4))
        A, D = inputs[2].contiguous(), inputs[5].contiguous()
        grad_NE = native.row_major(grad_NE)
        du, ddelta, dB, dC = (t.new_empty(t.shape) for t in (u, delta, B, C))
        dA_PES, dD_PE = A.new_empty(len(pieces), E, S), A.new_empty(len(pieces), E)
        arguments = (offsets, *_scanned(u, delta, A, B, C, D), grad_NE, grad_NE.stride(0), du, ddelta)

        def piece(i: int, first: int, last: int) -> None:
            native.call("rec_scan_backward", first, last, E, S, *arguments, dA_PES[i], dB, dC, dD_PE[i])

        native.in_parts(piece, pieces)
        return du, ddelta, dA_PES.sum(0), dB, dC, dD_PE.sum(0), None
