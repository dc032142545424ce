"""OneTrans: sequences and features in one transformer."""

# B rows, N S tokens of all rows, T NS tokens of a row, D width of a token
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Head, Model, flat_group, mlp_of, sequence_group, settings_of
from rec.modules.linear import SMALL_GAIN, Linear
from rec.modules.norm import RMSNorm
from rec.modules.one_trans import OneTransBlock, Tokens
from rec.modules.positions import Positions, steps_behind
from rec.ops.jagged import append_row, join_rows
from rec.protos.models import onetrans_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.OneTrans)
class OneTrans(Model):
    """Zhang et al., "OneTrans: Unified Feature Interaction and Sequence Modeling with One Transformer", WWW 2026.

    arXiv:2510.26104. Steps become S tokens, the DEEP group as a whole NS tokens (its auto-split tokenizer); blocks of
    pre-normed mixed attention and feed-forward, with fewer S tokens from block to block; the NS tokens of the last
    block side by side into an MLP.
    """

    def __init__(self, config: pb.OneTrans, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = flat_group(groups, config.input, config, "input")
        sequences = [sequence_group(groups, name, config, "sequence_inputs") for name in config.sequence_inputs]
        if not sequences:
            raise ConfigError("OneTrans has no sequence", config, "sequence_inputs", hint="name a SEQUENCE group")
        for i, sequence in enumerate(sequences):
            if sequence.query_width:
                raise ConfigError(
                    f'group "{sequence.name}" has a target, which OneTrans reads in group "{group.name}"',
                    config,
                    "sequence_inputs",
                    index=i,
                    hint="leave the features that are no sequences out of the group",
                )
        for name in ("ns_tokens", "d_model", "num_layers"):
            if getattr(config, name) < 1:
                raise ConfigError(f"{name} is 0", config, name, hint="give at least 1")
        width, self.tokens = config.d_model, config.ns_tokens
        self.group = group.name
        self.tokenize = Linear(group.width, self.tokens * width)
        self.sequences = nn.ModuleList(_Sequence(s, width, positions=config.positions) for s in sequences)
        self.separators = nn.ParameterList(nn.Parameter(0.01 * torch.randn(width)) for _ in sequences[1:])
        keys = sum(sequence.max_length for sequence in sequences) + len(sequences) - 1
        blocks = []
        with settings_of(config):
            for queries in _pyramid(config, keys):
                block = OneTransBlock(
                    width,
                    tokens=self.tokens,
                    num_heads=config.num_heads,
                    ffn_dim=config.ffn_dim or 4 * width,
                    keys=keys,
                    queries=queries,
                    dropout_ratio=config.dropout_ratio,
                )
                blocks.append(block)
                keys = queries
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm(width)
        self.final = mlp_of(config.final, self.tokens * width)
        # Behind a norm: without the small gain logits would start at order 1.
        self.head = Head(self.final.out_features, num_class=num_class, gain=SMALL_GAIN)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        first, *others = self.sequences
        s_ND, lengths_B = first(groups)
        for separator, sequence in zip(self.separators, others, strict=True):
            s_ND, lengths_B = append_row(s_ND, lengths_B, separator.expand(lengths_B.shape[0], -1))
            s_ND, lengths_B = join_rows(s_ND, lengths_B, *sequence(groups))
        tokens = Tokens(s_ND, lengths_B, self.tokenize(groups[self.group]).unflatten(1, (self.tokens, -1)))
        for block in self.blocks:
            tokens = block(tokens)
        return {"logits": self.head(self.final(self.norm(tokens.ns_BTD).flatten(1)))}


class _Sequence(nn.Module):
    """Steps of one group to S tokens."""

    def __init__(self, group: GroupShape, width: int, *, positions: bool) -> None:
        super().__init__()
        self.group, self.longest = group.name, group.max_length
        self.project = Linear(group.sequence_width, width)
        self.positions = Positions(group.max_length, width) if positions else None

    def forward(self, groups: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Jagged tokens [N, D] and how many each row has."""
        steps, lengths_B = groups[f"{self.group}.sequence"], groups[f"{self.group}.lengths"].to(torch.int64)
        tokens_ND = self.project(steps)
        if self.positions is not None:
            behind_N = steps_behind(lengths_B, lengths_B, steps).clamp(max=self.longest - 1)
            tokens_ND = tokens_ND + self.positions(behind_N)
        return tokens_ND, lengths_B


def _pyramid(config: pb.OneTrans, keys: int) -> list[int]:
    """S tokens of a row that go on from each block."""
    layers = config.num_layers
    given = list(config.s_queries)
    if not given:
        return [max(1, round(keys * (layers - i) / layers)) for i in range(1, layers)] + [0]
    if len(given) != layers - 1 or min(given) < 1 or any(b > a for a, b in zip([keys, *given], given, strict=False)):
        raise ConfigError(
            f"s_queries {given}: of {layers} blocks all but the last have a number, at most {keys} and no more than "
            "the one before",
            config,
            "s_queries",
            hint="leave it out for numbers that fall evenly",
        )
    return [*given, 0]
