"""Blocks in which the steps of one sequence attend to those of another."""

# B rows, N steps of all rows, M steps of the other sequence, D width
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.modules.transformer import Block
from rec.ops.jagged import row_of_each
from rec.ops.jagged_attention import jagged_cross_attention


class Steps(NamedTuple):
    """One sequence of each row.

    Attributes:
        x_ND: steps, jagged.
        lengths_B: steps of each row, which sum to N.
        kept_B: steps of each row that count, the first ones. 0 is a row that lacks the sequence.
    """

    x_ND: Tensor
    lengths_B: Tensor
    kept_B: Tensor


class CrossAttention(nn.Module):
    """W_o concat(softmax(Q_h K_h^T / sqrt(D / H)) V_h) + b, queries of one sequence, keys and values of another.

    As torch.nn.MultiheadAttention, whose weights carry over: `query` and `key_value` are its in_proj_*, cut after the
    first D rows.

    Args:
        width: D, of the steps of both.
        num_heads: H, a divisor of D.
        longest_query, longest_key: most steps that a row of either can have; what an exported model pads to.
        causal: see `rec.ops.jagged.masks.causal_cross_mask`.
        dropout_ratio: share of the attention weights zeroed in training.
    Raises:
        ValueError: for settings that cannot be; it begins with the argument's name.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        longest_query: int,
        longest_key: int,
        causal: bool = False,
        dropout_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the width {width}")
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"attention_dropout_ratio {dropout_ratio} must lie in [0, 1)")
        self.num_heads, self.longest_query, self.longest_key = num_heads, longest_query, longest_key
        self.causal, self.dropout_ratio = causal, dropout_ratio
        self.query, self.key_value, self.out_proj = Linear(width, width), Linear(width, 2 * width), Linear(width, width)
        # Two maps of their own: one of [2 D, D] would start as if it fed a layer twice as wide.
        for part in self.key_value.weight.data.chunk(2):
            nn.init.xavier_normal_(part)

    def forward(self, queries: Steps, keys: Steps) -> Tensor:
        """[N, D]; of no meaning for queries that do not count and for rows without keys that do."""
        k_MD, v_MD = self.key_value(keys.x_ND).chunk(2, dim=1)
        mixed_ND = jagged_cross_attention(
            self.query(queries.x_ND),
            k_MD,
            v_MD,
            query_lengths_B=queries.lengths_B,
            query_kept_B=queries.kept_B,
            key_lengths_B=keys.lengths_B,
            key_kept_B=keys.kept_B,
            num_heads=self.num_heads,
            longest_query=self.longest_query,
            longest_key=self.longest_key,
            causal=self.causal,
            dropout_ratio=self.dropout_ratio if self.training else 0.0,
        )
        return self.out_proj(mixed_ND)


class CrossLayer(Block):
    """A block whose attention looks at another sequence; a row that lacks it passes unchanged.

    Where it norms first, one layer norm serves queries and keys, as in MulT (Tsai et al., ACL 2019).

    Args:
        width: D.
        num_heads, longest_query, longest_key, causal: see `CrossAttention`.
        attention_dropout_ratio: share of the attention weights zeroed in training.
        settings: see `Block`.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        longest_query: int,
        longest_key: int,
        attention_dropout_ratio: float = 0.0,
        causal: bool = False,
        **settings: Any,
    ) -> None:
        attention = CrossAttention(
            width,
            num_heads=num_heads,
            longest_query=longest_query,
            longest_key=longest_key,
            causal=causal,
            dropout_ratio=attention_dropout_ratio,
        )
        super().__init__(width, attention=attention, **settings)

    def forward(self, queries: Steps, keys: Steps) -> Steps:
        """The queries after one look at the keys."""
        if self.norm_first:
            mixed_ND = self.attention(self._normed(queries), self._normed(keys))
        else:
            mixed_ND = self.attention(queries, keys)
        has_N = (keys.kept_B > 0).index_select(0, row_of_each(queries.lengths_B, queries.x_ND))
        # Not a product: an even look at nothing would still pass the biases and the norms.
        y_ND = torch.where(has_N.unsqueeze(1), self.with_mixed(queries.x_ND, mixed_ND), queries.x_ND)
        return queries._replace(x_ND=y_ND)

    def _normed(self, steps: Steps) -> Steps:
        return steps._replace(x_ND=self.norm_attention(steps.x_ND))
