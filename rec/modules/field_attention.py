"""Self-attention over the fields of a row."""

from __future__ import annotations

# B rows, F fields, H heads, K width of a head
import torch
from torch import Tensor, nn

from rec.modules.dropout import Dropout
from rec.modules.linear import Linear


class FieldAttention(nn.Module):
    """The interacting layers of AutoInt.

    Song et al., "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural
    Networks", CIKM 2019, arXiv:1810.11921, Eq. 5-8. Scores are not scaled there.

    Args:
        width: of a field.
        layer_num: number of layers.
        num_heads: H.
        attention_dim: H * K, width of a layer's output.
        use_residual: add the input to the output.
        use_scale: divide scores by sqrt(K).
        use_ln: layer normalisation before the ReLU.
        dropout_ratio: share of the attention weights zeroed in training.
    """

    def __init__(
        self,
        width: int,
        *,
        layer_num: int = 3,
        num_heads: int = 2,
        attention_dim: int = 64,
        use_residual: bool = True,
        use_scale: bool = False,
        use_ln: bool = False,
        dropout_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        if attention_dim % num_heads:
            raise ValueError(f"attention_dim {attention_dim} is not divisible by num_heads {num_heads}")
        self.layers = nn.Sequential(
            *(
                _Interacting(
                    attention_dim if i else width,
                    attention_dim,
                    num_heads,
                    use_residual=use_residual,
                    use_scale=use_scale,
                    use_ln=use_ln,
                    dropout_ratio=dropout_ratio,
                )
                for i in range(layer_num)
            )
        )
        self.out_features = attention_dim if layer_num else width

    def forward(self, x_BFD: Tensor) -> Tensor:
        """[B, F, width] -> [B, F, attention_dim]."""
        return self.layers(x_BFD)


class _Interacting(nn.Module):
    """relu(LN(attention(x) + residual))."""

    def __init__(
        self,
        width: int,
        attention_dim: int,
        num_heads: int,
        *,
        use_residual: bool,
        use_scale: bool,
        use_ln: bool,
        dropout_ratio: float,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(width, attention_dim, bias=False)
        self.key = Linear(width, attention_dim, bias=False)
        self.value = Linear(width, attention_dim, bias=False)
        self.scale = (attention_dim // num_heads) ** -0.5 if use_scale else 1.0
        self.residual: nn.Module | None = None
        if use_residual:
            same = width == attention_dim
            self.residual = nn.Identity() if same else Linear(width, attention_dim, bias=False)
        self.dropout = Dropout(dropout_ratio) if dropout_ratio > 0 else nn.Identity()
        self.norm = nn.LayerNorm(attention_dim) if use_ln else nn.Identity()

    def forward(self, x_BFD: Tensor) -> Tensor:
        """[B, F, width] -> [B, F, attention_dim]."""
        q_BHFK = self._heads(self.query(x_BFD) * self.scale)
        k_BHFK = self._heads(self.key(x_BFD))
        v_BHFK = self._heads(self.value(x_BFD))
        weights_BHFF = self.dropout(torch.softmax(q_BHFK @ k_BHFK.transpose(2, 3), dim=3))
        out = (weights_BHFF @ v_BHFK).transpose(1, 2).flatten(2)
        if self.residual is not None:
            out = out + self.residual(x_BFD)
        return torch.relu(self.norm(out))

    def _heads(self, x_BFA: Tensor) -> Tensor:
        """[B, F, H * K] -> [B, H, F, K]."""
        return x_BFA.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
