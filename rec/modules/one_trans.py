"""Blocks of OneTrans: a transformer over the tokens of sequences and of everything else."""

# B rows, N sequence (S) tokens of all rows, T other (NS) tokens of a row, D width, H heads, K width of a head
# L most S tokens of a row that come in, M most S tokens of a row that go out
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from rec.modules.activation import GELU
from rec.modules.dropout import Dropout
from rec.modules.linear import Linear
from rec.modules.norm import RMSNorm
from rec.ops.dtypes import widened
from rec.ops.jagged import flat_places, from_padded, last_of_rows, position_of_each, to_padded
from rec.ops.jagged.largest import LOWEST


class Tokens(NamedTuple):
    """The tokens of a batch.

    Attributes:
        s_ND: of the sequences, jagged: one kind of token, with shared parameters.
        lengths_B: S tokens of each row.
        ns_BTD: all others, each with parameters of its own.
    """

    s_ND: Tensor
    lengths_B: Tensor
    ns_BTD: Tensor


class TokenLinear(nn.Module):
    """A linear layer of its own for each of T tokens; starts as `Linear` does.

    Args:
        tokens: T.
        in_features: width of the input.
        out_features: width of the output.
    """

    def __init__(self, tokens: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(tokens, 1, out_features))
        for token in self.weight.detach():
            nn.init.xavier_normal_(token)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, in] -> [B, T, out]."""
        return torch.baddbmm(self.bias, x_BTD.transpose(0, 1), self.weight).transpose(0, 1)


class MixedAttention(nn.Module):
    """Causal attention over [S, NS]: shared weights for S tokens, token-specific ones for NS tokens.

    An S token sees the S tokens of its row up to itself; an NS token sees all of them and the NS tokens up to itself.

    Args:
        width: D.
        tokens: T.
        num_heads: H, a divisor of D.
        keys: L; what an exported model pads to.
        queries: M; 0 for none, and then no parameters for them.
    """

    later_TT: Tensor

    def __init__(self, width: int, *, tokens: int, num_heads: int, keys: int, queries: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the width {width}")
        self.num_heads, self.keys, self.queries = num_heads, keys, queries
        self.scale = (width // num_heads) ** -0.5
        self.s_key, self.s_value = Linear(width, width), Linear(width, width)
        self.ns_query, self.ns_key, self.ns_value = (TokenLinear(tokens, width, width) for _ in range(3))
        self.ns_out = TokenLinear(tokens, width, width)
        self.s_query = Linear(width, width) if queries else None
        self.s_out = Linear(width, width) if queries else None
        self.register_buffer("later_TT", torch.ones(tokens, tokens).triu(1) > 0, persistent=False)

    def forward(self, tokens: Tokens, asking_ND: Tensor, asking_B: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            tokens: all that is seen.
            asking_ND: the last S tokens of each row, those that ask, jagged.
            asking_B: how many.

        Returns:
            of the S tokens that ask, jagged, and of the NS tokens, [B, T, D]
        """
        s_ND, lengths_B, ns_BTD = tokens
        keys = _longest(lengths_B, self.keys)
        places_N = flat_places(position_of_each(lengths_B, s_ND), lengths_B, keys)
        k_BHLK = self._heads(to_padded(self.s_key(s_ND), places_N, lengths_B, keys))
        v_BHLK = self._heads(to_padded(self.s_value(s_ND), places_N, lengths_B, keys))
        at_L = torch.cumsum(lengths_B.new_ones(keys), 0) - 1

        q_BHTK = self._heads(self.ns_query(ns_BTD) * self.scale)
        k_BHTK, v_BHTK = self._heads(self.ns_key(ns_BTD)), self._heads(self.ns_value(ns_BTD))
        there_B11L = (at_L.unsqueeze(0) < lengths_B.unsqueeze(1)).unsqueeze(1).unsqueeze(1)
        # In place: the products are nobody else's, and a copy of the scores is what costs.
        # fp32: under autocast the products are half precision.
        of_s = widened(torch.matmul(q_BHTK, k_BHLK.transpose(2, 3))).masked_fill_(~there_B11L, LOWEST)
        of_ns = widened(torch.matmul(q_BHTK, k_BHTK.transpose(2, 3))).masked_fill_(self.later_TT, LOWEST)
        weights = torch.softmax(torch.cat([of_s, of_ns], dim=3), dim=-1)
        mixed_BHTK = torch.matmul(weights.to(v_BHLK.dtype), torch.cat([v_BHLK, v_BHTK], dim=2))
        ns_out = self.ns_out(mixed_BHTK.transpose(1, 2).flatten(2))
        if self.s_query is None or self.s_out is None:
            return asking_ND, ns_out

        queries = _longest(asking_B, self.queries)
        places_N = flat_places(position_of_each(asking_B, asking_ND), asking_B, queries)
        q_BHMK = self._heads(to_padded(self.s_query(asking_ND) * self.scale, places_N, asking_B, queries))
        # Query i of a row is its token i + n - m.
        at_M1 = (torch.cumsum(asking_B.new_ones(queries), 0) - 1).unsqueeze(1)
        seen = at_L.unsqueeze(0) <= at_M1 + (lengths_B - asking_B).unsqueeze(1).unsqueeze(1)
        scores = widened(torch.matmul(q_BHMK, k_BHLK.transpose(2, 3))).masked_fill_(~seen.unsqueeze(1), LOWEST)
        mixed_BHMK = torch.matmul(torch.softmax(scores, dim=-1).to(v_BHLK.dtype), v_BHLK)
        mixed_BMD = mixed_BHMK.transpose(1, 2).flatten(2)
        return self.s_out(from_padded(mixed_BMD, places_N, asking_B, queries)), ns_out

    def _heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class OneTransBlock(nn.Module):
    """x + MixedAttention(RMSNorm(x)), then x + MixedFFN(RMSNorm(x)); of the S tokens only the last ones go on.

    Zhang et al., "OneTrans: Unified Feature Interaction and Sequence Modeling with One Transformer in Industrial
    Recommender", WWW 2026, arXiv:2510.26104, section 3.3 and 3.4 (pyramid).

    Args:
        width: D.
        tokens: T.
        num_heads: H.
        ffn_dim: width of the hidden layer.
        keys: L.
        queries: M; 0 where no S token goes on.
        dropout_ratio: share of what either part adds that is zeroed in training.
    """

    def __init__(
        self, width: int, *, tokens: int, num_heads: int, ffn_dim: int, keys: int, queries: int, dropout_ratio: float
    ) -> None:
        super().__init__()
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio {dropout_ratio} must lie in [0, 1)")
        self.queries = queries
        self.attention = MixedAttention(width, tokens=tokens, num_heads=num_heads, keys=keys, queries=queries)
        self.norm_attention, self.norm_ffn = RMSNorm(width), RMSNorm(width)
        self.ns_ffn = nn.Sequential(TokenLinear(tokens, width, ffn_dim), GELU(), TokenLinear(tokens, ffn_dim, width))
        self.s_ffn = nn.Sequential(Linear(width, ffn_dim), GELU(), Linear(ffn_dim, width)) if queries else None
        self.dropout = Dropout(dropout_ratio) if dropout_ratio > 0 else nn.Identity()

    def forward(self, tokens: Tokens) -> Tokens:
        """The tokens that go on."""
        s_ND, lengths_B, ns_BTD = tokens
        kept_ND, kept_B = last_of_rows(s_ND, lengths_B, self.queries) if self.queries else (s_ND[:0], lengths_B * 0)
        seen = Tokens(self.norm_attention(s_ND), lengths_B, self.norm_attention(ns_BTD))
        s_mixed_ND, ns_mixed_BTD = self.attention(seen, self.norm_attention(kept_ND), kept_B)
        ns_BTD = ns_BTD + self.dropout(ns_mixed_BTD)
        ns_BTD = ns_BTD + self.dropout(self.ns_ffn(self.norm_ffn(ns_BTD)))
        if self.s_ffn is None:
            return Tokens(kept_ND, kept_B, ns_BTD)
        kept_ND = kept_ND + self.dropout(s_mixed_ND)
        return Tokens(kept_ND + self.dropout(self.s_ffn(self.norm_ffn(kept_ND))), kept_B, ns_BTD)


def _longest(lengths_B: Tensor, most: int) -> int:
    """Places to pad to: of this batch; in a traced graph of any."""
    if isinstance(lengths_B, fx.Proxy) or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return most
    return int(lengths_B.max()) if lengths_B.numel() else 0
