"""The attentional GRU as a traced graph calls it: its loop follows the data, so FX cannot unroll it."""

from __future__ import annotations

# B rows, N steps of all rows, H width of the state
import torch
import torch.nn.functional as F
from torch import Tensor

from rec.ops.gru import reference
from rec.ops.scripted import scriptable


@scriptable
def attentional_gru(
    gates_NG: Tensor, weight_GH: Tensor, bias_G: Tensor, attention_N: Tensor, lengths_B: Tensor
) -> Tensor:
    """The reference for TorchScript, which compiles it, and in Python; a `while_loop` for torch.export."""
    if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript leaves out what is under this test alone
        if torch.compiler.is_compiling():
            return while_loop_gru(gates_NG, weight_GH, bias_G, attention_N, lengths_B)
    return reference.attentional_gru(gates_NG, weight_GH, bias_G, attention_N, lengths_B)


def while_loop_gru(
    gates_NG: Tensor, weight_GH: Tensor, bias_G: Tensor, attention_N: Tensor, lengths_B: Tensor
) -> Tensor:
    """As `reference.attentional_gru`, without a gradient."""
    from torch._higher_order_ops import while_loop  # takes a second to import

    steps, width = gates_NG.shape[0], weight_GH.shape[1]
    lengths_B = lengths_B.to(torch.int64)
    starts_B = torch.cumsum(lengths_B, 0) - lengths_B
    longest = F.pad(lengths_B, (1, 0)).max()
    # One row more, where rows that have ended read and write.
    gates, attention = F.pad(gates_NG, (0, 0, 0, 1)), F.pad(attention_N, (0, 1))

    def running(t: Tensor, h_BH: Tensor, y: Tensor) -> Tensor:
        return t < longest

    def step(t: Tensor, h_BH: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n_B = torch.where(lengths_B > t, starts_B + t, steps)
        x_BG = gates.index_select(0, n_B)
        s_BG = torch.addmm(bias_G, h_BH, weight_GH.t())
        ru_BG = torch.sigmoid(x_BG[:, : 2 * width] + s_BG[:, : 2 * width])
        new_BH = torch.tanh(x_BG[:, 2 * width :] + ru_BG[:, :width] * s_BG[:, 2 * width :])
        u_BH = ru_BG[:, width:] * attention.index_select(0, n_B).unsqueeze(1)
        h_BH = h_BH + u_BH * (new_BH - h_BH)
        return t + 1, h_BH, y.index_copy(0, n_B, h_BH)

    first = torch.zeros((), dtype=torch.int64, device=gates_NG.device)
    h_BH = gates_NG.new_zeros(lengths_B.shape[0], width)
    return while_loop(running, step, (first, h_BH, gates.new_zeros(gates.shape[0], width)))[2][:steps]
