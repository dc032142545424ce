"""Transformer layers over jagged sequences."""

# B rows, N steps of all rows, D width
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from rec.modules.activation import activation as activation_of
from rec.modules.attention import SelfAttention
from rec.modules.dropout import Dropout
from rec.modules.linear import Linear
from rec.ops.jagged import row_at


class Block(nn.Module):
    """What attention adds, then a two-layer MLP on each step, both with a residual and a layer norm.

        norm last:   s = LN(x + drop(attention(x)));      y = LN(s + drop(W2 act(W1 s)))       (Vaswani et al., 2017)
        norm first:  s = x + drop(attention(LN(x)));      y = s + drop(W2 act(W1 LN(s)))       (arXiv:2002.04745)

    Args:
        width: D.
        attention: called by the subclass.
        ffn_dim: width of the MLP's hidden layer; 0 is D.
        dropout_ratio: share of what either part adds that is zeroed in training.
        activation: of the MLP, as `rec.modules.activation.activation` reads it.
        norm_first: which of the two forms.
        norm_eps: what the layer norms add to a variance.
    """

    def __init__(
        self,
        width: int,
        *,
        attention: nn.Module,
        ffn_dim: int = 0,
        dropout_ratio: float = 0.0,
        activation: str = "nn.ReLU",
        norm_first: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio {dropout_ratio} must lie in [0, 1)")
        self.norm_first = norm_first
        self.attention = attention
        hidden = ffn_dim or width
        self.ffn = nn.Sequential(Linear(width, hidden), activation_of(activation, hidden), Linear(hidden, width))
        self.norm_attention, self.norm_ffn = (nn.LayerNorm(width, eps=norm_eps) for _ in range(2))
        self.dropout = Dropout(dropout_ratio) if dropout_ratio > 0 else nn.Identity()

    def with_mixed(self, x_ND: Tensor, mixed_ND: Tensor) -> Tensor:
        """The block's output of steps and of what attention adds to them."""
        s_ND = x_ND + self.dropout(mixed_ND)
        if self.norm_first:
            return s_ND + self.dropout(self.ffn(self.norm_ffn(s_ND)))
        s_ND = self.norm_attention(s_ND)
        return self.norm_ffn(s_ND + self.dropout(self.ffn(s_ND)))


class TransformerLayer(Block):
    """A block of self-attention (BST, Eq. 4-6, where it norms last).

    Args:
        width: D.
        num_heads: of the attention, a divisor of D.
        longest: most steps that a row can have.
        attention_dropout_ratio: share of the attention weights zeroed in training.
        causal: a step sees itself and those before it only.
        settings: see `Block`.
    Raises:
        ValueError: for settings that cannot be; it begins with the argument's name.
    """

    attention: SelfAttention

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        longest: int,
        attention_dropout_ratio: float = 0.0,
        causal: bool = False,
        **settings: Any,
    ) -> None:
        attention = SelfAttention(
            width, num_heads=num_heads, longest=longest, causal=causal, dropout_ratio=attention_dropout_ratio
        )
        super().__init__(width, attention=attention, **settings)

    def forward(self, x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """All steps.

        Args:
            x_ND: jagged steps.
            lengths_B: steps of each row, [B].
            kept_B: steps of each row that count, the first ones, [B].

        Returns:
            [N, D]; of no meaning for steps that do not count.
        """
        seen_ND = self.norm_attention(x_ND) if self.norm_first else x_ND
        return self.with_mixed(x_ND, self.attention(seen_ND, lengths_B, kept_B))

    def of_last(self, x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """The last step that counts of each row, [B, D], without computing the others' outputs."""
        last_BD = row_at(x_ND, lengths_B, kept_B - 1)
        seen_ND = self.norm_attention(x_ND) if self.norm_first else x_ND
        return self.with_mixed(last_BD, self.attention.of_last(seen_ND, lengths_B, kept_B))


class Transformer(nn.Module):
    """Layers one after the other; where they norm first, a layer norm at the end.

    Args:
        layers: at least one.
        width: D.
    """

    def __init__(self, layers: Iterable[TransformerLayer], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if not self.layers:
            raise ValueError("num_layers 0 must be positive")
        self.norm = nn.LayerNorm(width) if next(iter(self.layers)).norm_first else nn.Identity()

    def forward(self, x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """All steps: [N, D] -> [N, D]."""
        for layer in self.layers:
            x_ND = layer(x_ND, lengths_B, kept_B)
        return self.norm(x_ND)

    def of_last(self, x_ND: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """The last step that counts of each row: [N, D] -> [B, D]; of no meaning for a row without one."""
        layers: list[Any] = list(self.layers)
        for layer in layers[:-1]:
            x_ND = layer(x_ND, lengths_B, kept_B)
        return self.norm(layers[-1].of_last(x_ND, lengths_B, kept_B))
