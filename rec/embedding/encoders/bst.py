"""Behavior Sequence Transformer as a sequence encoder."""

# B rows, N steps of all rows, D width of a step
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.config.names import suggest
from rec.embedding.encoders.base import ENCODERS, SequenceEncoder
from rec.embedding.encoders.target import missing_columns
from rec.embedding.shapes import GroupShape, Members
from rec.modules.bst import BehaviorSequenceTransformer
from rec.modules.positions import TIMES, steps_behind, time_buckets
from rec.protos import seq_encoder_pb2 as pb


@ENCODERS.register(pb.BSTEncoder)
class BSTEncoder(SequenceEncoder):
    """Steps and target as tokens with positions beside them, through transformer layers (arXiv:1905.06874).

    A query narrower than the steps is filled up with zeros: what it is compared with comes first.
    """

    def __init__(self, config: pb.BSTEncoder, group: GroupShape) -> None:
        super().__init__(config, group)
        settings = kwargs_of(
            config, "name", "input", "position", "position_dim", "time_feature", "time_bucket_seconds", "max_seq_length"
        )
        self.position = kwargs_of(config)["position"]
        self.time_column = _time_column(config, group)
        steps = tuple(member for member in group.sequence if member[0] != config.time_feature)
        self.padding = missing_columns(config, group, steps)
        self.unit = config.time_bucket_seconds
        if self.unit <= 0:
            raise ConfigError(f"time_bucket_seconds {self.unit} must be positive", config, "time_bucket_seconds")
        width, most = sum(columns for _, columns in steps), self.most_steps(group)
        beside = (config.position_dim or steps[0][1]) if self.position != "NONE" else 0
        if config.num_heads < 1 or (width + beside) % config.num_heads:
            raise ConfigError(
                f"num_heads {config.num_heads} does not divide the width of a token, {width} of the step and {beside} "
                "of its position",
                config,
                "num_heads",
                hint=f"set position_dim: {beside + -(width + beside) % max(config.num_heads, 1)}, or other num_heads",
            )
        try:
            self.transformer = BehaviorSequenceTransformer(
                width,
                position_dim=beside,
                positions=TIMES if self.position == "TIME_DELTA" else most + 1,
                most_steps=most,
                **settings,
            )
        except ValueError as e:
            raise ConfigError(str(e), config) from e
        self.output_width = self.transformer.out_features

    def forward(self, query_BQ: Tensor, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, Dq], [sum L, D] -> [B, output_width]."""
        if self.padding > 0:
            query_BQ = F.pad(query_BQ, (0, self.padding))
        kept_B = self.cut_lengths(lengths_B)
        at_N = None
        if self.time_column is not None:
            before, seconds_N1, behind = self._split(steps_ND)
            steps_ND = torch.cat([before, behind], dim=1)
            at_N = time_buckets(seconds_N1.squeeze(1), self.unit)
        elif self.position == "INDEX":
            # The target is behind the last step.
            counted_B = lengths_B if kept_B is None else kept_B
            at_N = steps_behind(lengths_B, counted_B, steps_ND) + 1
        return self.transformer(query_BQ, steps_ND, at_N, lengths_B, kept_B)

    def _split(self, steps_ND: Tensor) -> list[Tensor]:
        """Columns before the time, the time, columns behind it."""
        column = self.time_column
        assert column is not None
        return [steps_ND[:, :column], steps_ND[:, column : column + 1], steps_ND[:, column + 1 :]]


def _time_column(config: pb.BSTEncoder, group: GroupShape) -> int | None:
    """Where the time lies among the columns of a step; None without one."""
    if config.position != pb.BSTEncoder.TIME_DELTA:
        if config.time_feature:
            raise ConfigError(
                f"time_feature is not read with position: {pb.BSTEncoder.Position.Name(config.position)}",
                config,
                "time_feature",
                hint="set position: TIME_DELTA, or leave time_feature out (and the feature out of the group)",
            )
        return None
    names = [name for name, _ in group.sequence]
    if config.time_feature not in names:
        raise ConfigError(
            f'sequence group "{group.name}" has no sequence "{config.time_feature}"'
            if config.time_feature
            else "position TIME_DELTA needs a time_feature",
            config,
            "time_feature" if config.time_feature else "position",
            hint=suggest(config.time_feature, names, what="its sequences are")
            if config.time_feature
            else "name the raw sequence feature that holds the seconds since each step, or set position: INDEX",
        )
    column = names.index(config.time_feature)
    if group.sequence[column][1] != 1 or len(names) == 1:
        raise ConfigError(
            f'time_feature "{config.time_feature}" is {group.sequence[column][1]} wide'
            if len(names) > 1
            else f'sequence group "{group.name}" has no steps besides time_feature "{config.time_feature}"',
            config,
            "time_feature",
            hint="it has to be a raw_feature with one number a step, beside the features that the steps consist of",
        )
    return _columns(group.sequence[:column])


def _columns(members: Members) -> int:
    return sum(width for _, width in members)
