"""Transformer layers as a sequence encoder."""

# B rows, N steps of all rows, D width of a step, W of the layers
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.encoders.target import missing_columns
from rec.embedding.shapes import GroupShape
from rec.modules.linear import Linear
from rec.modules.pooling import pool_steps
from rec.modules.positions import Positions, steps_behind
from rec.modules.transformer import Transformer, TransformerLayer
from rec.ops.jagged import insert_row
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.TransformerEncoder)
class TransformerEncoder(SequenceEncoder):
    """Steps (and, on request, the target behind them) with positions added, through layers, pooled.

    Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    """

    def __init__(self, config: pb.TransformerEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        settings = kwargs_of(config)
        self.appends = config.append_target
        self.padding = missing_columns(config, group, group.sequence) if self.appends else 0
        self.pooling = settings["pooling"].lower()
        most = self.most_steps(group) + self.appends
        width = config.model_dim or group.sequence_width
        self.output_width = width
        self.project = Linear(group.sequence_width, width) if config.model_dim else nn.Identity()
        position = settings["position"]
        self.positions = Positions(most, width, learned=position == "LEARNED") if position != "NONE" else None
        try:
            layers = [
                TransformerLayer(
                    width,
                    num_heads=config.num_heads,
                    longest=most,
                    ffn_dim=config.ffn_dim or 4 * width,
                    dropout_ratio=config.dropout_ratio,
                    attention_dropout_ratio=config.attention_dropout_ratio,
                    activation=config.activation,
                    norm_first=settings["norm"] == "PRE",
                    causal=config.causal,
                )
                for _ in range(config.num_layers)
            ]
            self.layers = Transformer(layers, width)
        except ValueError as e:
            raise ConfigError(str(e), config) from e

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, W]."""
        kept_B, cut_B = self.kept_lengths(lengths_B), self.cut_lengths(lengths_B)
        if self.appends:
            if self.padding > 0:
                query_BQ = F.pad(query_BQ, (0, self.padding))
            steps_ND = insert_row(steps_ND, lengths_B, query_BQ, kept_B)
            lengths_B, kept_B = lengths_B + 1, kept_B + 1
            cut_B = None if cut_B is None else kept_B
        h_NW = self.project(steps_ND)
        if self.positions is not None:
            h_NW = h_NW + self.positions(steps_behind(lengths_B, kept_B, h_NW))
        if self.pooling == "last":
            return self.layers.of_last(h_NW, lengths_B, kept_B) * (kept_B > 0).unsqueeze(1)
        return pool_steps(self.layers(h_NW, lengths_B, kept_B), lengths_B, self.pooling, kept_B=cut_B)
