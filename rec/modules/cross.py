"""Cross networks of DCN v2: every layer raises the degree of the interactions by one."""

from __future__ import annotations

# B rows, D width, R rank, E experts
import torch
from torch import Tensor, nn

from rec.modules.activation import activation
from rec.modules.linear import Linear


class CrossV2(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W full, low-rank or a mixture of low-rank experts.

    Wang et al., "DCN V2: Improved Deep & Cross Network ...", WWW 2021, arXiv:2008.13535, Eq. 1-4.

    Args:
        width: D, of input and output.
        cross_num: number of layers.
        low_rank: rank of W; 0 is a full matrix.
        num_experts: number of low-rank experts mixed by a softmax gate (DCN-Mix).
        expert_activation: activation inside an expert, before and after its [R, R] matrix.
    """

    def __init__(
        self,
        width: int,
        *,
        cross_num: int = 3,
        low_rank: int = 32,
        num_experts: int = 1,
        expert_activation: str = "nn.Tanh",
    ) -> None:
        super().__init__()
        if num_experts < 1:
            raise ValueError(f"num_experts is {num_experts}, must be at least 1")
        if num_experts > 1 and low_rank == 0:
            raise ValueError(f"num_experts is {num_experts}, but experts have a low rank: set low_rank above 0")
        layers: list[nn.Module] = []
        for _ in range(cross_num):
            if num_experts > 1:
                layers.append(ExpertMix(width, low_rank, num_experts, activation_name=expert_activation))
            elif low_rank:
                layers.append(nn.Sequential(Linear(width, low_rank, bias=False), Linear(low_rank, width)))
            else:
                layers.append(Linear(width, width))
        self.layers = nn.ModuleList(layers)

    def forward(self, x0_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        x_BD = x0_BD
        for layer in self.layers:
            x_BD = torch.addcmul(x_BD, x0_BD, layer(x_BD))
        return x_BD


class ExpertMix(nn.Module):
    """sum_e g_e(x) U_e s(C_e s(V_e x)) + b with g the softmax of a linear gate: Eq. 3 and 4 of DCN v2.

    The bias is one for all experts: the gates sum to one. Each layer has gates of its own.

    Args:
        width: D, of input and output.
        rank: R, of an expert.
        num_experts: E.
        activation_name: s.
    """

    def __init__(self, width: int, rank: int, num_experts: int, *, activation_name: str) -> None:
        super().__init__()
        self.num_experts, self.rank = num_experts, rank
        # V of all experts in one product, and so U below.
        self.down = Linear(width, num_experts * rank, bias=False)
        self.inner = nn.Parameter(torch.empty(num_experts, rank, rank))
        self.up = Linear(num_experts * rank, width)
        self.gate = Linear(width, num_experts, bias=False)
        self.act1 = activation(activation_name, num_experts * rank)
        self.act2 = activation(activation_name, num_experts * rank)
        for expert in range(num_experts):
            nn.init.xavier_normal_(self.inner[expert])
            block = slice(expert * rank, (expert + 1) * rank)
            # Each expert's own matrix is Xavier normal, not the stacked one.
            for weight in (self.down.weight[block], self.up.weight[:, block]):
                nn.init.normal_(weight, std=(2.0 / (width + rank)) ** 0.5)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        v_BX = self.act1(self.down(x_BD))
        v_BER = v_BX.view(-1, self.num_experts, self.rank)
        # Not einsum: its decomposition asks whether B is 1, and torch.export would then fix that.
        c_BER = torch.bmm(v_BER.transpose(0, 1), self.inner).transpose(0, 1)
        c_BER = self.act2(c_BER.flatten(1)).view(-1, self.num_experts, self.rank)
        gate_BE = torch.softmax(self.gate(x_BD), dim=1)
        # Gating before U is the same sum, one product instead of E.
        return self.up((c_BER * gate_BE.unsqueeze(2)).flatten(1))
