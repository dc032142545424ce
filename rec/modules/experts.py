"""Experts shared by tasks and the gates that mix them."""

from __future__ import annotations

# B rows, E experts, D width of an expert's output
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.modules.mlp import MLP


class GatedExperts(nn.Module):
    """For each task, sum_e softmax(gate(x))_e expert_e(x).

    Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018, Eq. 6 and 7.

    Args:
        experts: the experts, of equal output width.
        gates: per task, hidden layers before the softmax layer.
    """

    def __init__(self, experts: Sequence[MLP], gates: Sequence[MLP]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.gates = nn.ModuleList(nn.Sequential(gate, Linear(gate.out_features, len(experts))) for gate in gates)
        self.out_features = experts[0].out_features

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, in_features] -> [B, D] per task."""
        outputs_BED = torch.stack([expert(x) for expert in self.experts], dim=1)
        return [torch.bmm(torch.softmax(gate(x), dim=1).unsqueeze(1), outputs_BED).squeeze(1) for gate in self.gates]
