"""The selective scan in Triton, forward and backward: a program goes over some channels of one row, a chunk at a time.

Within a chunk the recurrence is an associative scan of pairs (a, b), h = a h + b; between chunks the state is carried.
Nothing is added up across programs inside the kernels, so results repeat bit by bit. Derivation in README.md.
"""

# B rows, N steps of all rows, E channels, S states of a channel; T, X and S2: steps, channels and states of a tile
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rec.ops.native import row_major

CHUNK = 16
TILE = 128  # channels times states: 2048 floats a tile, of which the backward holds about eight
LN2 = 0.6931471805599453
LOG2E = 1.4426950408889634


@triton.jit
def _then(a_first, b_first, a_second, b_second):
    """One step (a, b), which takes h to a h + b, and then another."""
    return a_first * a_second, a_second * b_first + b_second


@triton.jit
def _tile(at, n, stride, columns, live, width):
    """[T, X] from rows `n` of a matrix, 0 beyond it."""
    mask = live[:, None] & (columns < width)[None, :]
    return tl.load(at + n[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _forward(
    u_at, dt_at, A_at, B_at, C_at, D_at, y_at, starts_at, offsets_at, chunks_at,
    u_stride, dt_stride, B_stride, C_stride, E, S,
    T: tl.constexpr, X: tl.constexpr, S2: tl.constexpr, KEEP: tl.constexpr, LOG2E: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    e, s, k = tl.program_id(1) * X + tl.arange(0, X), tl.arange(0, S2), tl.arange(0, T)
    states = (s < S)[:, None] & (e < E)[None, :]
    A_SX = tl.load(A_at + e[None, :] * S + s[:, None], mask=states, other=0.0) * LOG2E
    D_X = tl.load(D_at + e, mask=e < E, other=0.0)
    begin, end = tl.load(offsets_at + row), tl.load(offsets_at + row + 1)
    chunk = tl.load(chunks_at + row)
    h_SX = tl.zeros([S2, X], tl.float32)
    for first in range(begin, end, T):
        if KEEP:
            tl.store(starts_at + (chunk * E + e[None, :]) * S + s[:, None], h_SX, mask=states)
        chunk += 1
        n = first + k
        live = n < end
        u, dt = _tile(u_at, n, u_stride, e, live, E), _tile(dt_at, n, dt_stride, e, live, E)
        B, C = _tile(B_at, n, B_stride, s, live, S), _tile(C_at, n, C_stride, s, live, S)
        # Beyond the row dt is 0: nothing decays, nothing is added.
        a = tl.exp2(dt[:, None, :] * A_SX[None, :, :])
        b = (dt * u)[:, None, :] * B[:, :, None]
        decay, h = tl.associative_scan((a, b), 0, _then)
        h += decay * h_SX[None, :, :]
        y = tl.sum(h * C[:, :, None], 1) + D_X[None, :] * u
        tl.store(y_at + n[:, None] * E + e[None, :], y, mask=live[:, None] & (e < E)[None, :])
        h_SX = tl.sum(tl.where((k == T - 1)[:, None, None], h, 0.0), 0)


@triton.jit
def _backward(
    u_at, dt_at, A_at, B_at, C_at, D_at, gy_at, starts_at, offsets_at, chunks_at,
    du_at, ddt_at, dA_at, dB_at, dC_at, dD_at,
    u_stride, dt_stride, B_stride, C_stride, gy_stride, N, E, S,
    T: tl.constexpr, X: tl.constexpr, S2: tl.constexpr, LOG2E: tl.constexpr, LN2: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    e, s, k = tl.program_id(1) * X + tl.arange(0, X), tl.arange(0, S2), tl.arange(0, T)
    states = (s < S)[:, None] & (e < E)[None, :]
    A_SX = tl.load(A_at + e[None, :] * S + s[:, None], mask=states, other=0.0) * LOG2E
    D_X = tl.load(D_at + e, mask=e < E, other=0.0)
    begin, end = tl.load(offsets_at + row), tl.load(offsets_at + row + 1)
    chunks = tl.cdiv(end - begin, T)
    chunk0 = tl.load(chunks_at + row)
    later_SX, dA_SX = tl.zeros([S2, X], tl.float32), tl.zeros([S2, X], tl.float32)
    dD_X = tl.zeros([X], tl.float32)
    for i in range(0, chunks):
        chunk = chunks - 1 - i
        h_SX = tl.load(starts_at + ((chunk0 + chunk) * E + e[None, :]) * S + s[:, None], mask=states, other=0.0)
        n = begin + chunk * T + k
        live = n < end
        u, dt = _tile(u_at, n, u_stride, e, live, E), _tile(dt_at, n, dt_stride, e, live, E)
        B, C = _tile(B_at, n, B_stride, s, live, S), _tile(C_at, n, C_stride, s, live, S)
        gy = _tile(gy_at, n, gy_stride, e, live, E)
        # The state before each step: the same scan one step late.
        late = live & (k > 0)
        u0, dt0 = _tile(u_at, n - 1, u_stride, e, late, E), _tile(dt_at, n - 1, dt_stride, e, late, E)
        B0 = _tile(B_at, n - 1, B_stride, s, late, S)
        a0 = tl.exp2(dt0[:, None, :] * A_SX[None, :, :])
        decay, before = tl.associative_scan((a0, (dt0 * u0)[:, None, :] * B0[:, :, None]), 0, _then)
        before += decay * h_SX[None, :, :]
        a = tl.exp2(dt[:, None, :] * A_SX[None, :, :])
        h = a * before + (dt * u)[:, None, :] * B[:, :, None]
        # Its gradient: gh_t = gy_t C_t + a_(t+1) gh_(t+1), from the last step on.
        dt1 = _tile(dt_at, n + 1, dt_stride, e, n + 1 < end, E)
        a1 = tl.exp2(dt1[:, None, :] * A_SX[None, :, :])
        decay, gh = tl.associative_scan((a1, gy[:, None, :] * C[:, :, None]), 0, _then, reverse=True)
        gh += decay * later_SX[None, :, :]
        later_SX = tl.sum(tl.where((k == 0)[:, None, None], gh, 0.0), 0)
        through_B = tl.sum(gh * B[:, :, None], 1)
        p = gh * a * before
        inside = live[:, None] & (e < E)[None, :]
        tl.store(du_at + n[:, None] * E + e[None, :], dt * through_B + D_X[None, :] * gy, mask=inside)
        ddt = u * through_B + LN2 * tl.sum(p * A_SX[None, :, :], 1)
        tl.store(ddt_at + n[:, None] * E + e[None, :], ddt, mask=inside)
        dA_SX += tl.sum(p * dt[:, None, :], 0)
        dD_X += tl.sum(gy * u, 0)
        # Sums over the channels of this block; the blocks are added outside.
        place = (block * N + n[:, None]) * S + s[None, :]
        written = live[:, None] & (s < S)[None, :]
        tl.store(dB_at + place, tl.sum(gh * (dt * u)[:, None, :], 2), mask=written)
        tl.store(dC_at + place, tl.sum(gy[:, None, :] * h, 2), mask=written)
    tl.store(dA_at + (row * E + e[None, :]) * S + s[:, None], dA_SX, mask=states)
    tl.store(dD_at + row * E + e, dD_X, mask=e < E)


def _sizes(E: int, S: int) -> tuple[int, int]:
    """Channels and states of a tile, powers of two."""
    states = triton.next_power_of_2(S)
    return max(1, min(triton.next_power_of_2(E), TILE // states)), states


def _offsets(lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Where rows start among the steps, and among the chunks: int64 [B + 1] each."""
    chunks_B = torch.div(lengths_B.to(torch.int64) + CHUNK - 1, CHUNK, rounding_mode="floor")
    both = torch.stack([lengths_B.to(torch.int64), chunks_B])
    steps, chunks = torch.nn.functional.pad(torch.cumsum(both, 1), (1, 0)).contiguous().unbind(0)
    return steps, chunks


class TritonScan(Function):
    """Keeps the inputs and the states that chunks start from. Lengths that do not sum to N are not noticed."""

    @staticmethod
    def forward(
        ctx: Any,
        u_NE: Tensor,
        delta_NE: Tensor,
        A_ES: Tensor,
        B_NS: Tensor,
        C_NS: Tensor,
        D_E: Tensor,
        lengths_B: Tensor,
    ) -> Tensor:
        """[N, E]."""
        u, delta, B, C = (row_major(t) for t in (u_NE, delta_NE, B_NS, C_NS))
        A, D = A_ES.contiguous(), D_E.contiguous()
        (N, E), S, rows = u.shape, A.shape[1], lengths_B.shape[0]
        steps, chunks = _offsets(lengths_B)
        y = u.new_empty(N, E)
        keep = any(ctx.needs_input_grad)
        # At most so many chunks; how many exactly is not asked, the answer would wait for the device.
        starts = u.new_empty((N // CHUNK + rows) if keep else 0, E, S)
        X, S2 = _sizes(E, S)
        if rows > 0 and N > 0:
            _forward[(rows, triton.cdiv(E, X))](
                u, delta, A, B, C, D, y, starts, steps, chunks,
                u.stride(0), delta.stride(0), B.stride(0), C.stride(0), E, S,
                T=CHUNK, X=X, S2=S2, KEEP=keep, LOG2E=LOG2E,
            )  # fmt: skip
        ctx.save_for_backward(u, delta, A, B, C, D, starts, steps, chunks)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NE: Tensor) -> tuple[Tensor | None, ...]:
        """[N, E] -> gradients of all inputs."""
        u, delta, A, B, C, D, starts, steps, chunks = ctx.saved_tensors
        gy = row_major(grad_NE)
        (N, E), S, rows = u.shape, A.shape[1], steps.shape[0] - 1
        X, S2 = _sizes(E, S)
        blocks = triton.cdiv(E, X)
        du, ddelta = u.new_empty(N, E), u.new_empty(N, E)
        dB, dC = u.new_empty(blocks, N, S), u.new_empty(blocks, N, S)
        dA, dD = u.new_zeros(rows, E, S), u.new_zeros(rows, E)
        if rows > 0 and N > 0:
            _backward[(rows, blocks)](
                u, delta, A, B, C, D, gy, starts, steps, chunks, du, ddelta, dA, dB, dC, dD,
                u.stride(0), delta.stride(0), B.stride(0), C.stride(0), gy.stride(0), N, E, S,
                T=CHUNK, X=X, S2=S2, LOG2E=LOG2E, LN2=LN2,
            )  # fmt: skip
        return du, ddelta, dA.sum(0), dB.sum(0), dC.sum(0), dD.sum(0), None
