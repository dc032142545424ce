"""Behavior Sequence Transformer over jagged sequences."""

# B rows, N steps of all rows, D width of a step, P of a position, T = D + P of a token
from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.modules.pooling import pool_steps
from rec.modules.positions import Positions
from rec.modules.transformer import Transformer, TransformerLayer
from rec.ops.jagged import flat_places, insert_row, position_of_each, row_of_each, to_padded

POOLINGS = ("CONCAT", "TARGET", "MEAN", "SUM")


class BehaviorSequenceTransformer(nn.Module):
    """Steps and target as tokens [vector, position], the target last, through layers that norm last.

    Chen et al., "Behavior Sequence Transformer for E-commerce Recommendation in Alibaba", DLP-KDD 2019,
    arXiv:1905.06874. Without dropout and with CONCAT the outputs are those of FuxiCTR's BehaviorTransformer
    (docs/results/agreement.md).

    Args:
        width: D, of a step and of the target.
        position_dim: P; 0 puts nothing beside a step.
        positions: number of different positions; the target's is 0.
        most_steps: most steps that a row can have.
        num_layers: number of layers.
        num_heads: divides D + P.
        ffn_dim: width of the layers' MLPs; 0 is D + P.
        dropout_ratio: share of what attention and MLP add that is zeroed in training.
        activation: of the MLPs.
        pooling: "CONCAT" the tokens' outputs side by side, the target last and the step before it next to it, 0 where
            there is no step; "TARGET" the target's output; "MEAN" or "SUM" of all.
    Raises:
        ValueError: for settings that cannot be; it begins with the argument's name.
    """

    def __init__(
        self,
        width: int,
        *,
        position_dim: int,
        positions: int,
        most_steps: int,
        num_layers: int = 1,
        num_heads: int = 8,
        ffn_dim: int = 0,
        dropout_ratio: float = 0.0,
        activation: str = "nn.LeakyReLU",
        pooling: str = "CONCAT",
    ) -> None:
        super().__init__()
        self.pooling, self.slots, token = pooling, most_steps + 1, width + position_dim
        self.positions = Positions(positions, position_dim) if position_dim else None
        layers = [
            TransformerLayer(
                token,
                num_heads=num_heads,
                longest=self.slots,
                ffn_dim=ffn_dim,
                dropout_ratio=dropout_ratio,
                activation=activation,
            )
            for _ in range(num_layers)
        ]
        self.layers = Transformer(layers, token)
        self.out_features = token * (self.slots if pooling == "CONCAT" else 1)

    def forward(
        self, target_BD: Tensor, steps_ND: Tensor, at_N: Tensor | None, lengths_B: Tensor, kept_B: Tensor | None = None
    ) -> Tensor:
        """Encode.

        Args:
            target_BD: what the steps are read for.
            steps_ND: jagged steps.
            at_N: position of each step, int64; None without positions.
            lengths_B: steps of each row, [B].
            kept_B: steps of each row that count, the first ones, [B]; None is all.

        Returns:
            [B, out_features]
        """
        steps_B = lengths_B if kept_B is None else kept_B
        if self.positions is not None:
            steps_ND = torch.cat([steps_ND, self.positions(at_N)], dim=1)
            of_target_BP = self.positions.table_PD[:1].expand(target_BD.shape[0], -1)
            target_BD = torch.cat([target_BD, of_target_BP], dim=1)
        tokens_MT = insert_row(steps_ND, lengths_B, target_BD, steps_B)
        lengths_B, steps_B = lengths_B + 1, steps_B + 1
        if self.pooling == "TARGET":
            return self.layers.of_last(tokens_MT, lengths_B, steps_B)
        tokens_MT = self.layers(tokens_MT, lengths_B, steps_B)
        if self.pooling == "CONCAT":
            return self._side_by_side(tokens_MT, lengths_B, steps_B)
        counted_B = None if kept_B is None else steps_B
        return pool_steps(tokens_MT, lengths_B, self.pooling.lower(), kept_B=counted_B)

    def _side_by_side(self, tokens_MT: Tensor, lengths_B: Tensor, kept_B: Tensor) -> Tensor:
        """The target in the last of the places, the steps before it: [B, slots * T]."""
        behind_M = (
            kept_B.index_select(0, row_of_each(lengths_B, tokens_MT)) - 1 - position_of_each(lengths_B, tokens_MT)
        )
        # Of those that do not count it is negative, so that their place is past the last.
        flat_M = flat_places(self.slots - 1 - behind_M, lengths_B, self.slots)
        return to_padded(tokens_MT, flat_M, lengths_B, self.slots).flatten(1)
