"""Mamba: a selective state space model over jagged sequences, and the layers that Mamba4Rec builds of it."""

# B rows, N steps of all rows, L padded length, D width, E inner width, S states of a channel, R rank of delta, K taps
from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.modules.activation import GELU
from rec.modules.dropout import Dropout
from rec.modules.linear import Linear
from rec.ops.causal_conv1d import causal_conv1d_silu
from rec.ops.dtypes import widened
from rec.ops.jagged import row_at
from rec.ops.selective_scan import Inputs, scan_with_states, selective_scan


class MambaState(NamedTuple):
    """What a block remembers of the steps so far.

    Attributes:
        conv_BKE: the last K - 1 inputs of the convolution, the newest last.
        ssm_BES: the states, float32.
    """

    conv_BKE: Tensor
    ssm_BES: Tensor


class MambaBlock(nn.Module):
    """The Mamba block (Gu & Dao, arXiv:2312.00752, section 3.4) in the official parametrisation.

        xi, z = in_proj(x);  xc = SiLU(conv1d(xi));  delta, B, C = x_proj(xc);  Delta = softplus(dt_proj(delta))
        h_t = exp(Delta_t A) h_(t-1) + Delta_t xc_t B_t^T;  y_t = h_t C_t + D xc_t;  out = out_proj(y SiLU(z))

    Names and shapes of the parameters are those of state-spaces/mamba and of mambapy, so weights carry over. The
    initial values are the official ones. Convolution and scan are in float32 under autocast.

    Args:
        width: D, of the input and the output.
        d_state: S.
        d_conv: K, steps that the convolution sees.
        expand: E is `expand` times D.
        dt_rank: R; 0 is D / 16, rounded up.
        dt_min, dt_max: Delta starts log-uniform between them.
        dt_init_floor: and not below this.
    """

    def __init__(
        self,
        width: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int = 0,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
    ) -> None:
        super().__init__()
        for name, value in (("d_state", d_state), ("d_conv", d_conv), ("expand", expand)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more")
        if dt_rank < 0:
            raise ValueError(f"dt_rank is {dt_rank}, expected 0 (a sixteenth of the width) or more")
        self.inner, self.taps = expand * width, d_conv
        self.sizes = [dt_rank or math.ceil(width / 16), d_state, d_state]
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        # Holds the weights under their official names; the steps are jagged, so its own forward is not used.
        self.conv1d = nn.Conv1d(self.inner, self.inner, d_conv, groups=self.inner)
        self.x_proj = nn.Linear(self.inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(self.sizes[0], self.inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1)).repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)
        # As in the official code: a pull to 0 would set every rate of decay to 1 (rec.train.optimizers reads it).
        self.A_log._no_weight_decay = True  # type: ignore[attr-defined]
        self.D._no_weight_decay = True  # type: ignore[attr-defined]
        self._reset_dt(dt_min, dt_max, dt_init_floor)

    @torch.no_grad()
    def _reset_dt(self, dt_min: float, dt_max: float, floor: float) -> None:
        bound = self.sizes[0] ** -0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        dt = torch.exp(torch.empty(self.inner).uniform_(math.log(dt_min), math.log(dt_max))).clamp(min=floor)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the softplus of it is dt

    def forward(self, x_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """Every step by itself and the steps before it in its row.

        Args:
            x_ND: jagged steps.
            lengths_B: steps of each row.

        Returns:
            [N, D]
        """
        xi_NE, z_NE = self.in_proj(x_ND).chunk(2, dim=-1)
        xc_NE = self._convolved(xi_NE, lengths_B)
        y_NE = selective_scan(*self._scanned(xc_NE), lengths_B)
        return self.out_proj(y_NE * F.silu(widened(z_NE)))

    def _filters(self) -> Tensor:
        return self.conv1d.weight.squeeze(1)

    def _convolved(self, xi_NE: Tensor, lengths_B: Tensor) -> Tensor:
        return causal_conv1d_silu(xi_NE, self._filters(), self.conv1d.bias, lengths_B, taps=self.taps)

    def _scanned(self, xc_NE: Tensor) -> Inputs:
        """u, delta, A, B, C and D of the scan."""
        rank_NR, B_NS, C_NS = self.x_proj(xc_NE).split(self.sizes, dim=-1)
        delta_NE = F.softplus(widened(self.dt_proj(rank_NR)))
        return xc_NE, delta_NE, -torch.exp(self.A_log), B_NS, C_NS, self.D

    def forward_padded(self, x_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """The same for padded rows; what the padding holds and on which side it lies changes nothing.

        Args:
            x_BLD: padded steps.
            mask_BL: true at steps.

        Returns:
            [B, L, D], 0 at padding
        """
        mask_BL = mask_BL.bool()
        y_ND = self(x_BLD[mask_BL], mask_BL.sum(dim=1))
        y_BLD = y_ND.new_zeros(x_BLD.shape)
        y_BLD[mask_BL] = y_ND
        return y_BLD

    def first_state(self, rows: int) -> MambaState:
        """The state before any step."""
        like = self.A_log
        return MambaState(like.new_zeros(rows, self.taps - 1, self.inner), like.new_zeros(rows, *like.shape))

    @torch.no_grad()
    def prefill(self, x_ND: Tensor, lengths_B: Tensor) -> tuple[Tensor, MambaState]:
        """`forward`, and the state after each row's last step, for `step` to go on from; without gradients."""
        xi_NE, z_NE = self.in_proj(x_ND).chunk(2, dim=-1)
        xc_NE = self._convolved(xi_NE, lengths_B)
        y_NE, ssm_BES = scan_with_states(*self._scanned(xc_NE), lengths_B)
        back = range(self.taps - 1, 0, -1)
        last = [row_at(widened(xi_NE), lengths_B, lengths_B - k) for k in back]
        conv_BKE = torch.stack(last, dim=1) if last else self.first_state(lengths_B.shape[0]).conv_BKE
        return self.out_proj(y_NE * F.silu(widened(z_NE))), MambaState(conv_BKE, ssm_BES)

    @torch.no_grad()
    def step(self, x_BD: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """One step more of each row, in time that does not depend on the steps before; without gradients.

        Args:
            x_BD: the next step of each row.
            state: of `first_state`, `prefill` or the last `step`.

        Returns:
            [B, D], and the state after it.
        """
        xi_BE, z_BE = self.in_proj(x_BD).chunk(2, dim=-1)
        seen_BKE = torch.cat([state.conv_BKE, widened(xi_BE).unsqueeze(1)], dim=1)
        bias_E = self.conv1d.bias
        assert bias_E is not None
        xc_BE = F.silu((seen_BKE * self._filters().t()).sum(dim=1) + bias_E)
        ones_B = torch.ones(x_BD.shape[0], dtype=torch.int64, device=x_BD.device)
        y_BE, ssm_BES = scan_with_states(*self._scanned(xc_BE), ones_B, state.ssm_BES)
        return self.out_proj(y_BE * F.silu(widened(z_BE))), MambaState(seen_BKE[:, 1:], ssm_BES)


class Mamba4RecLayer(nn.Module):
    """One layer of Mamba4Rec: a Mamba block, then a feed-forward network, each normalised after its residual.

        h = LN(Dropout(Mamba(h)) + h);  h = LN(Dropout(W2 Dropout(GELU(W1 h))) + h)

    Liu et al., "Mamba4Rec", arXiv:2403.03900, section 3; LN has eps 1e-12 as in its code.

    Args:
        width: D, of a step.
        d_state, d_conv, expand: of the block.
        dropout: share of the outputs zeroed in training.
        residual: whether the block's input is added to its output.
    """

    def __init__(
        self,
        width: int,
        *,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dropout: float = 0.2,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout:g}, expected at least 0 and less than 1")
        self.residual = residual
        self.mamba = MambaBlock(width, d_state=d_state, d_conv=d_conv, expand=expand)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.feed_forward = nn.Sequential(
            Linear(width, 4 * width), GELU(), Dropout(dropout), Linear(4 * width, width), Dropout(dropout)
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = Dropout(dropout)

    def forward(self, h_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        mixed_ND = self.dropout(self.mamba(h_ND, lengths_B))
        h_ND = self.norm(mixed_ND + h_ND if self.residual else mixed_ND)
        return self.feed_forward_norm(self.feed_forward(h_ND) + h_ND)


class Mamba4RecLayers(nn.Module):
    """Mamba4Rec between its embeddings and its scores: LN(Dropout(steps)), then layers; no positions.

    Liu et al., "Mamba4Rec: Towards Efficient Sequential Recommendation with Selective State Space Models",
    arXiv:2403.03900, with its defaults for MovieLens-1M.

    Args:
        width: D, of a step.
        num_layers: of `Mamba4RecLayer`.
        d_state, d_conv, expand: of the Mamba blocks.
        dropout: of the steps and within the layers.
        mamba_init: "MAMBA" starts the blocks as Mamba does. "RECBOLE" starts as the authors' code: all linear
            weights N(0, 0.02), all biases 0, that of dt_proj too, so Delta starts at 0.69 instead of 0.001 to 0.1.
        single_layer_residual: whether a single layer adds its input, as several do. The authors' code does not.
    """

    def __init__(
        self,
        width: int,
        *,
        num_layers: int = 1,
        d_state: int = 32,
        d_conv: int = 4,
        expand: int = 2,
        dropout: float = 0.2,
        mamba_init: str = "MAMBA",
        single_layer_residual: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}, expected 1 or more")
        if mamba_init not in ("MAMBA", "RECBOLE"):
            raise ValueError(f'mamba_init is "{mamba_init}", expected MAMBA or RECBOLE')
        residual = num_layers > 1 or single_layer_residual
        self.layers = nn.ModuleList(
            Mamba4RecLayer(width, d_state=d_state, d_conv=d_conv, expand=expand, dropout=dropout, residual=residual)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = Dropout(dropout)
        if mamba_init == "RECBOLE":
            self.apply(_as_recbole)

    def forward(self, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """Every step with what came before it in its row.

        Args:
            steps_ND: jagged steps.
            lengths_B: steps of each row.

        Returns:
            [N, D]
        """
        h_ND = self.norm(self.dropout(steps_ND))
        for layer in self.layers:
            h_ND = layer(h_ND, lengths_B)
        return h_ND


def _as_recbole(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
