"""Sequences of several modalities (text, audio, video, ...) brought together, and mixed row by row.

A modality that a row lacks has no steps that count: it changes nothing in the others and weighs 0.
"""

# B rows, N steps of all rows of a modality, D width, M modalities
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rec.modules.cross_attention import CrossLayer, Steps
from rec.modules.dropout import Dropout
from rec.modules.linear import SMALL_GAIN, Linear
from rec.modules.pooling import pool_steps
from rec.modules.positions import Positions
from rec.modules.precision import full_precision
from rec.modules.transformer import Transformer, TransformerLayer
from rec.ops.dtypes import widened
from rec.ops.jagged import position_of_each, row_of_each, segment_softmax, segment_sum
from rec.ops.jagged.largest import LOWEST


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """Transformer blocks, by self-attention or from one sequence to another.

    Attributes:
        num_layers: blocks one after the other.
        num_heads: of the attention, a divisor of the width.
        ffn_dim: width of the MLP's hidden layer; 0 is twice the width.
        dropout_ratio: share of what attention and MLP add that is zeroed in training.
        attention_dropout_ratio: share of the attention weights zeroed in training.
        activation: of the MLP.
        norm: "POST" after each residual, "PRE" before attention and MLP.
        norm_eps: what the layer norms add to a variance.
        causal: steps see themselves and what came before only.
    """

    num_layers: int = 1
    num_heads: int = 4
    ffn_dim: int = 0
    dropout_ratio: float = 0.1
    attention_dropout_ratio: float = 0.0
    activation: str = "nn.GELU"
    norm: str = "POST"
    norm_eps: float = 1e-6
    causal: bool = False

    def of(self, width: int) -> dict[str, Any]:
        """Keyword arguments of `TransformerLayer` and `CrossLayer`."""
        return {
            "num_heads": self.num_heads,
            "ffn_dim": self.ffn_dim or 2 * width,
            "dropout_ratio": self.dropout_ratio,
            "attention_dropout_ratio": self.attention_dropout_ratio,
            "activation": self.activation,
            "norm_first": self.norm == "PRE",
            "norm_eps": self.norm_eps,
            "causal": self.causal,
        }


class ModalityInput(nn.Module):
    """Steps of one modality at the common width: Dropout(W x + b + position), then blocks of self-attention.

    Args:
        in_features: width of a step.
        width: D.
        longest: most steps that a row can have.
        blocks: of self-attention; None for none.
        position: "LEARNED", "SINUSOID" or "NONE".
        dropout_ratio: share of the projected steps zeroed in training.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        longest: int,
        blocks: BlockSettings | None,
        position: str = "LEARNED",
        dropout_ratio: float = 0.0,
    ) -> None:
        super().__init__()
        self.longest = longest
        self.project = Linear(in_features, width)
        self.positions = Positions(longest, width, learned=position == "LEARNED") if position != "NONE" else None
        self.dropout = Dropout(dropout_ratio) if dropout_ratio else nn.Identity()
        self.blocks: nn.Module | None = None
        if blocks is not None:
            layers = [TransformerLayer(width, longest=longest, **blocks.of(width)) for _ in range(blocks.num_layers)]
            self.blocks = Transformer(layers, width)

    def forward(self, steps: Steps) -> Steps:
        """Steps [N, in_features] to steps [N, D]."""
        h_ND = self.project(steps.x_ND)
        if self.positions is not None:
            at_N = position_of_each(steps.lengths_B, h_ND).clamp(max=self.longest - 1)
            h_ND = h_ND + self.positions(at_N)
        h_ND = self.dropout(h_ND)
        if self.blocks is not None:
            h_ND = self.blocks(h_ND, steps.lengths_B, steps.kept_B)
        return steps._replace(x_ND=h_ND)


class ModalityDropout(nn.Module):
    """In training each row loses each of its modalities with some probability; one that would lose all keeps all.

    Args:
        ratio: the probability.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        if not 0 <= ratio < 1:
            raise ValueError(f"modality_dropout {ratio} must lie in [0, 1)")
        self.ratio = ratio

    def forward(self, modalities: list[Steps]) -> list[Steps]:
        """A lost modality has no steps that count."""
        if not self.training or self.ratio == 0:
            return modalities
        kept_BM = torch.stack([m.kept_B for m in modalities], dim=1)
        left_BM = (kept_BM > 0) & (torch.rand(kept_BM.shape, device=kept_BM.device) >= self.ratio)
        left_BM = left_BM | ~left_BM.any(dim=1, keepdim=True)
        return [m._replace(kept_B=m.kept_B * left_B) for m, left_B in zip(modalities, left_BM.unbind(1), strict=True)]


class CrossModalFusion(nn.Module):
    """The first modality looks at each other one, in turn; layers of that.

        in each layer t = Cross(t <- m) for each other modality m; bidirectional also m = Cross(m <- t), t as it is now

    Args:
        width: D.
        longest: most steps that a row can have, of each modality.
        blocks: of the layers.
        primary: number of the modality that looks at the others.
        bidirectional: whether they look back.
    """

    def __init__(
        self,
        width: int,
        longest: Sequence[int],
        *,
        blocks: BlockSettings,
        primary: int = 0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.primary, self.bidirectional = primary, bidirectional
        self.others = [m for m in range(len(longest)) if m != primary]
        self.out_features = width

        def looks(query: int, key: int) -> CrossLayer:
            return CrossLayer(width, longest_query=longest[query], longest_key=longest[key], **blocks.of(width))

        self.layers = nn.ModuleList(
            nn.ModuleList(looks(primary, m) for m in self.others) for _ in range(blocks.num_layers)
        )
        self.back = nn.ModuleList(
            nn.ModuleList(looks(m, primary) for m in self.others)
            for _ in range(blocks.num_layers if bidirectional else 0)
        )
        first = blocks.norm == "PRE"
        # What norms first has none at the end.
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, eps=blocks.norm_eps) if first and (m == primary or bidirectional) else nn.Identity()
            for m in range(len(longest))
        )

    def forward(self, modalities: list[Steps]) -> list[Steps]:
        """Steps [N, D] each, to the same."""
        steps = list(modalities)
        layers: list[Any] = list(self.layers)
        back: list[Any] = list(self.back) or [[None] * len(self.others)] * len(layers)
        for there, again in zip(layers, back, strict=True):
            for m, look in zip(self.others, there, strict=True):
                steps[self.primary] = look(steps[self.primary], steps[m])
            if self.bidirectional:
                for m, look in zip(self.others, again, strict=True):
                    steps[m] = look(steps[m], steps[self.primary])
        return [s._replace(x_ND=norm(s.x_ND)) for s, norm in zip(steps, self.norms, strict=True)]


class CrossModalEncoder(nn.Module):
    """MulT's encoder: a target modality looks at a source, whose steps stay as they came in at every layer.

    Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019, Eq. 4.

    Args:
        width: D.
        longest_query, longest_key: most steps of a row of target and source.
        num_layers: blocks, which norm first; a layer norm at the end.
        settings: see `CrossLayer`.
    """

    def __init__(self, width: int, *, longest_query: int, longest_key: int, num_layers: int, **settings: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossLayer(width, longest_query=longest_query, longest_key=longest_key, norm_first=True, **settings)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Steps, source: Steps) -> Steps:
        """The target's steps, [N, D]."""
        for layer in self.layers:
            target = layer(target, source)
        return target._replace(x_ND=self.norm(target.x_ND))


class MulTFusion(nn.Module):
    """Every modality looks at every other one; what it saw side by side, through self-attention.

    Tsai et al., ACL 2019 (see `CrossModalEncoder`); the authors' defaults, without dropout between an MLP's layers.

    Args:
        width: D.
        longest: most steps that a row can have, of each modality.
        num_layers: blocks from one modality to another.
        memory_layers: blocks of self-attention over what a modality saw.
        num_heads: of all attention, a divisor of D.
        ffn_dim: width of the MLPs' hidden layers; 0 is four times their input.
        dropout_ratio: share of what attention and MLPs add that is zeroed in training.
        attention_dropout_ratio: share of the attention weights zeroed in training.
        causal: steps see up to their own place only; see `rec.ops.jagged.masks.causal_cross_mask`.
    """

    def __init__(
        self,
        width: int,
        longest: Sequence[int],
        *,
        num_layers: int = 5,
        memory_layers: int = 3,
        num_heads: int = 5,
        ffn_dim: int = 0,
        dropout_ratio: float = 0.1,
        attention_dropout_ratio: float = 0.1,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError("num_layers 0 must be positive")
        settings: dict[str, Any] = {
            "num_heads": num_heads,
            "dropout_ratio": dropout_ratio,
            "attention_dropout_ratio": attention_dropout_ratio,
            "causal": causal,
        }
        numbers = range(len(longest))
        self.out_features = (len(longest) - 1) * width
        wide = self.out_features
        self.looks = nn.ModuleList(
            nn.ModuleList(
                CrossModalEncoder(
                    width,
                    longest_query=longest[target],
                    longest_key=longest[source],
                    num_layers=num_layers,
                    ffn_dim=ffn_dim or 4 * width,
                    **settings,
                )
                for source in numbers
                if source != target
            )
            for target in numbers
        )
        self.memories = nn.ModuleList(
            Transformer(
                [
                    TransformerLayer(wide, longest=most, ffn_dim=ffn_dim or 4 * wide, norm_first=True, **settings)
                    for _ in range(memory_layers)
                ],
                wide,
            )
            for most in longest
        )

    def forward(self, modalities: list[Steps]) -> list[Steps]:
        """Steps [N, D] each, to steps [N, (M - 1) D]."""
        out = []
        looks: list[Any] = list(self.looks)
        for target, steps in enumerate(modalities):
            others = [m for number, m in enumerate(modalities) if number != target]
            seen = [look(steps, other).x_ND for look, other in zip(looks[target], others, strict=True)]
            memory = self.memories[target](torch.cat(seen, dim=1), steps.lengths_B, steps.kept_B)
            out.append(steps._replace(x_ND=memory))
        return out


class AttentionPooling(nn.Module):
    """sum of softmax(v tanh(W x + b)) x over the steps of a row that count; 0 where none does.

    Args:
        width: D; the scores have D / 4 hidden units.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 4)
        # A bias of the score would shift all steps alike, which a softmax does not see.
        self.hidden, self.score = Linear(width, hidden), Linear(hidden, 1, bias=False)

    def forward(self, steps: Steps) -> Tensor:
        """[N, D] -> [B, D]."""
        x_ND, lengths_B, kept_B = steps
        kept_N = kept_B.index_select(0, row_of_each(lengths_B, x_ND))
        counts_N1 = (position_of_each(lengths_B, x_ND) < kept_N).unsqueeze(1)
        scores_N1 = self.score(torch.tanh(self.hidden(x_ND))).masked_fill(~counts_N1, LOWEST)
        weights_N1 = segment_softmax(scores_N1, lengths_B) * counts_N1
        return segment_sum(weights_N1 * x_ND, lengths_B)


class AdaptiveFusion(nn.Module):
    """A vector of each modality, and their sum under weights that the row decides.

        s_m = pooled steps;  w = softmax(W2 Dropout(ReLU(W1 [s_1, ..., s_M])) + log(has_m));  f = sum of w_m s_m

    A modality that a row lacks weighs 0, and a row that lacks all has f = 0. In float32 throughout. With one modality
    there is no gate.

    Args:
        width: D, of the steps.
        modalities: M.
        pooling: "MEAN" or "ATTENTION" over the steps, or the "LAST".
        gate_input: "CONCAT", all pooled vectors side by side; "MEAN_OF_ALL", their mean, which cannot tell one
            modality from another (the first published form).
        gate_dim: hidden units of the gate; 0 is D / 2.
        dropout_ratio: share of the gate's hidden units zeroed in training.
    """

    def __init__(
        self,
        width: int,
        modalities: int,
        *,
        pooling: str = "MEAN",
        gate_input: str = "CONCAT",
        gate_dim: int = 0,
        dropout_ratio: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio {dropout_ratio} must lie in [0, 1)")
        self.pooling, self.mean_input = pooling.lower(), gate_input == "MEAN_OF_ALL"
        self.pools = nn.ModuleList(AttentionPooling(width) for _ in range(modalities) if pooling == "ATTENTION")
        self.gate: nn.Module | None = None
        if modalities > 1:
            hidden = gate_dim or max(1, width // 2)
            self.gate = nn.Sequential(
                Linear(width if self.mean_input else width * modalities, hidden),
                nn.ReLU(),
                Dropout(dropout_ratio) if dropout_ratio else nn.Identity(),
                Linear(hidden, modalities, gain=SMALL_GAIN),
            )

    def forward(self, modalities: list[Steps]) -> tuple[Tensor, Tensor]:
        """Pool and mix.

        Args:
            modalities: steps [N, D] each.
        Returns:
            f [B, D] and w [B, M], float32 or wider
        """
        with full_precision(modalities[0].x_ND):
            pooled_BMD = torch.stack(list(self._pooled(modalities)), dim=1)
            has_BM = torch.stack([m.kept_B > 0 for m in modalities], dim=1)
            if self.gate is None:
                w_BM = has_BM.to(pooled_BMD.dtype)
            else:
                seen = pooled_BMD.mean(dim=1) if self.mean_input else pooled_BMD.flatten(1)
                # log(has) without its infinity: a row that lacks everything stays finite, and the product is its 0.
                w_BM = torch.softmax(self.gate(seen).masked_fill(~has_BM, LOWEST), dim=1) * has_BM
            return (w_BM.unsqueeze(2) * pooled_BMD).sum(dim=1), w_BM

    def _pooled(self, modalities: list[Steps]) -> Iterator[Tensor]:
        for number, (x_ND, lengths_B, kept_B) in enumerate(modalities):
            if self.pooling == "attention":
                yield self.pools[number](Steps(widened(x_ND), lengths_B, kept_B))
            else:
                yield pool_steps(widened(x_ND), lengths_B, self.pooling, kept_B=kept_B)
