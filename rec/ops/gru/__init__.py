"""A GRU with attention in its update gate over jagged rows (AUGRU of DIEN). The loop over time is PyTorch's."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from rec.ops.gru import exported, reference
from rec.ops.scripted import graph_call

__all__ = ["attentional_gru", "reference"]


def attentional_gru(
    gates_NG: Tensor, weight_GH: Tensor, bias_G: Tensor, attention_N: Tensor, lengths_B: Tensor
) -> Tensor:
    """States of every step, [N, H]; see `rec.ops.gru.reference`."""
    arguments = (gates_NG, weight_GH, bias_G, attention_N, lengths_B)
    # The loop follows the data: TorchScript compiles it, FX cannot unroll it.
    if isinstance(gates_NG, fx.Proxy):
        return graph_call(exported.attentional_gru, *arguments)  # type: ignore[return-value]
    if torch.compiler.is_compiling():
        return exported.while_loop_gru(*arguments)
    return reference.attentional_gru(*arguments)
