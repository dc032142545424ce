"""The selective scan as a traced graph calls it: its loop follows the data, so FX cannot unroll it."""

from __future__ import annotations

# B rows, N steps of all rows, E channels, S states of a channel
import torch
from torch import Tensor

from rec.ops.scripted import scriptable
from rec.ops.selective_scan import reference


@scriptable
def selective_scan(
    u_NE: Tensor, delta_NE: Tensor, A_ES: Tensor, B_NS: Tensor, C_NS: Tensor, D_E: Tensor, lengths_B: Tensor
) -> Tensor:
    """`reference.selective_scan` for TorchScript, which compiles it, and in Python; a `while_loop` for torch.export."""
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript leaves out what is under this test alone
        if torch.compiler.is_compiling():
            return while_loop_scan(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E, lengths_B)
    return reference.selective_scan(u_NE, delta_NE, A_ES, B_NS, C_NS, D_E, lengths_B)


def while_loop_scan(
    u_NE: Tensor, delta_NE: Tensor, A_ES: Tensor, B_NS: Tensor, C_NS: Tensor, D_E: Tensor, lengths_B: Tensor
) -> Tensor:
    """As `reference.selective_scan`, without a gradient."""
    from torch._higher_order_ops import while_loop  # takes a second to import

    steps = u_NE.shape[0]
    lengths_B = lengths_B.to(torch.int64)
    starts_B = torch.cumsum(lengths_B, 0) - lengths_B
    longest = torch.nn.functional.pad(lengths_B, (1, 0)).max()

    def with_a_spare_row(x_NX: Tensor) -> Tensor:
        # Where rows that have ended read and write.
        return torch.nn.functional.pad(x_NX, (0, 0, 0, 1))

    u, delta, B, C = (with_a_spare_row(t) for t in (u_NE, delta_NE, B_NS, C_NS))

    def running(t: Tensor, h_BES: Tensor, y: Tensor) -> Tensor:
        return t < longest

    def step(t: Tensor, h_BES: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n_B = torch.where(lengths_B > t, starts_B + t, steps)
        u_BE, delta_BE = u.index_select(0, n_B), delta.index_select(0, n_B)
        decay_BES = torch.exp(delta_BE.unsqueeze(2) * A_ES)
        h_BES = decay_BES * h_BES + (delta_BE * u_BE).unsqueeze(2) * B.index_select(0, n_B).unsqueeze(1)
        y_BE = torch.bmm(h_BES, C.index_select(0, n_B).unsqueeze(2)).squeeze(2) + D_E * u_BE
        return t + 1, h_BES, y.index_copy(0, n_B, y_BE)

    first = torch.zeros((), dtype=torch.int64, device=u_NE.device)
    h_BES = u_NE.new_zeros((lengths_B.shape[0], A_ES.shape[0], A_ES.shape[1]))
    return while_loop(running, step, (first, h_BES, torch.zeros_like(u)))[2][:steps]
