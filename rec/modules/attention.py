"""Multi-head self-attention over jagged sequences."""

# B rows, N steps of all rows, D width, A width of all heads
from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.ops.jagged import row_at
from rec.ops.jagged_attention import attention_of_rows, jagged_attention
from rec.ops.linear import linear


class SelfAttention(nn.Module):
    """W_o concat(softmax(Q_h K_h^T / sqrt(A / H)) V_h) + b, each row by itself.

    Vaswani et al., "Attention Is All You Need", NeurIPS 2017. Names and shapes of the parameters are those of
    torch.nn.MultiheadAttention, whose weights carry over (out_proj.weight, out_proj.bias, in_proj.* as in_proj_*).

    Args:
        width: D, of a step.
        num_heads: H.
        attention_dim: A, of all heads together and of the output; 0 is D.
        causal: a step sees itself and those before it only.
        dropout_ratio: share of the attention weights zeroed in training.
        longest: most steps that a row can have; what an exported model pads to.
    Raises:
        ValueError: A is not divisible by H.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        longest: int,
        attention_dim: int = 0,
        causal: bool = False,
        dropout_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_features = attention_dim or width
        if num_heads < 1 or self.out_features % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the attention's width {self.out_features}")
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio {dropout_ratio} must lie in [0, 1)")
        self.num_heads, self.longest, self.causal, self.dropout_ratio = num_heads, longest, causal, dropout_ratio
        # Three maps of their own: one of [3 A, D] would start as if it fed a layer three times as wide.
        self.in_proj = Linear(width, 3 * self.out_features)
        for part in self.in_proj.weight.data.chunk(3):
            nn.init.xavier_normal_(part)
        self.out_proj = Linear(self.out_features, self.out_features)

    def forward(self, x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """Every step attends to the steps of its row.

        Args:
            x_ND: jagged steps.
            lengths_B: steps of each row, [B].
            kept_B: steps of each row that count, the first ones, [B].

        Returns:
            [N, A]; of no meaning for steps that do not count.
        """
        mixed_NA = jagged_attention(
            self.in_proj(x_ND),
            lengths_B,
            kept_B,
            num_heads=self.num_heads,
            longest=self.longest,
            causal=self.causal,
            dropout_ratio=self._dropout(),
        )
        return self.out_proj(mixed_NA)

    def of_last(self, x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """Only the last step that counts attends: row `kept - 1` of each row of `forward`, [B, A].

        0 keys give the bias of the output.
        """
        w_query, w_rest = self.in_proj.weight.tensor_split([self.out_features], dim=0)
        b_query, b_rest = self.in_proj.bias.tensor_split([self.out_features], dim=0)
        k_NA, v_NA = linear(x_ND, w_rest, b_rest).chunk(2, dim=1)
        q_BA = F.linear(row_at(x_ND, lengths_B, kept_B - 1), w_query, b_query)
        mixed_BA = attention_of_rows(
            q_BA, k_NA, v_NA, lengths_B, kept_B, num_heads=self.num_heads, dropout_ratio=self._dropout()
        )
        return self.out_proj(mixed_BA)

    def _dropout(self) -> float:
        return self.dropout_ratio if self.training else 0.0


def dot_attention(query_BD: Tensor, steps_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
    """Sum of softmax(<q, k_i>) k_i over the steps of each row, without any weights.

    Args:
        query_BD: target of each row.
        steps_ND: jagged steps.
        lengths_B: steps of each row, [B].
        kept_B: steps of each row that count, the first ones, [B].

    Returns:
        [B, D]; 0 for a row without steps that count.
    """
    # The scores are plain products here.
    scale = math.sqrt(query_BD.shape[1])
    return attention_of_rows(query_BD * scale, steps_ND, steps_ND, lengths_B, kept_B, num_heads=1)
