"""MSA: sequences of several modalities, brought together step by step and mixed row by row."""

# B rows, N steps of all rows of a modality, D width
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.config.names import suggest
from rec.models.base import MODELS, Head, Model, flat_group, mlp_of, sequence_group, settings_of, task_heads
from rec.modules.cross_attention import Steps
from rec.modules.linear import SMALL_GAIN
from rec.modules.multimodal import (
    AdaptiveFusion,
    BlockSettings,
    CrossModalFusion,
    ModalityDropout,
    ModalityInput,
    MulTFusion,
)
from rec.modules.precision import full_precision
from rec.ops.dtypes import widened
from rec.protos.models import msa_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.MSA)
class MSA(Model):
    """Sequence-level multimodal fusion (docs/models/msa.md).

    h_m = blocks(Dropout(W_m x_m + position)), each modality by itself; cross-modal attention between them, in which
    steps stay steps; s_m = pooled h_m; w = softmax(gate([s_1, ..., s_M]) + log(has_m)); y = head(MLP(sum of w_m s_m)).
    """

    def __init__(self, config: pb.MSA, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        shapes = _modalities(config, groups)
        self.modalities = [shape.name for shape in shapes]
        if config.width < 1:
            raise ConfigError("width is 0", config, "width", hint="give at least 1")
        longest = [shape.max_length for shape in shapes]
        with settings_of(config):
            self.modality_dropout = ModalityDropout(config.modality_dropout)
            blocks = BlockSettings(**kwargs_of(config.encoder)) if config.HasField("encoder") else None
        with settings_of(config.encoder if blocks is not None else config):
            self.inputs = nn.ModuleList(
                ModalityInput(
                    shape.sequence_width,
                    config.width,
                    longest=shape.max_length,
                    blocks=blocks,
                    position=pb.MSA.Position.Name(config.position),
                    dropout_ratio=config.dropout_ratio,
                )
                for shape in shapes
            )
        self.fusion = _fusion(config, self.modalities, longest)
        width = config.width if self.fusion is None else self.fusion.out_features
        with settings_of(config.head):
            self.head = AdaptiveFusion(width, len(shapes), **kwargs_of(config.head))
        self.static = config.static_input
        self.static_mlp: nn.Module = nn.Identity()
        if self.static:
            self.static_mlp = mlp_of(config.static_mlp, flat_group(groups, self.static, config, "static_input").width)
            width += self.static_mlp.out_features
        elif config.HasField("static_mlp"):
            raise ConfigError("static_mlp has no group to read", config, "static_mlp", hint="set static_input")
        self.final = mlp_of(config.final, width)
        self.tasks: list[str] = []
        if config.task_towers:
            self.tasks, towers = task_heads(config, config.task_towers, self.final.out_features)
        else:
            # Behind layer norms: without the small gain the first answers would be of order 1.
            towers = nn.ModuleList([Head(self.final.out_features, num_class=num_class, gain=SMALL_GAIN)])
        self.towers = towers

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits" (or "logits_<tower>") and "weight_<modality>", all float32."""
        steps = self.modality_dropout([_steps(groups, name) for name in self.modalities])
        steps = [module(s) for module, s in zip(self.inputs, steps, strict=True)]
        if self.fusion is not None:
            steps = self.fusion(steps)
        mixed_BD, weights_BM = self.head(steps)
        # A regression's last layers in half precision would round its answers to three digits.
        with full_precision(mixed_BD):
            if self.static:
                mixed_BD = torch.cat([mixed_BD, self.static_mlp(widened(groups[self.static]))], dim=1)
            last = self.final(mixed_BD)
            names = [f"logits_{task}" for task in self.tasks] or ["logits"]
            predictions = {name: tower(last) for name, tower in zip(names, self.towers, strict=True)}
        # By number: a traced tensor cannot be unbound into Python's hands.
        return predictions | {f"weight_{name}": weights_BM[:, m] for m, name in enumerate(self.modalities)}


def _steps(groups: dict[str, Tensor], name: str) -> Steps:
    lengths_B = groups[f"{name}.lengths"].to(torch.int64)
    return Steps(groups[f"{name}.sequence"], lengths_B, lengths_B)


def _modalities(config: pb.MSA, groups: GroupShapes) -> list[GroupShape]:
    if not config.modalities:
        raise ConfigError("MSA has no modality", config, "modalities", hint="name SEQUENCE groups, one a modality")
    shapes = []
    for i, name in enumerate(config.modalities):
        shape = sequence_group(groups, name, config, "modalities")
        if shape.query_width:
            raise ConfigError(
                f'group "{name}" has features that are no sequences, which MSA does not read there',
                config,
                "modalities",
                index=i,
                hint="put them into a DEEP group and name it in static_input",
            )
        if name in config.modalities[:i]:
            raise ConfigError(f'modality "{name}" stands twice', config, "modalities", index=i, hint="remove one")
        shapes.append(shape)
    return shapes


def _fusion(config: pb.MSA, names: list[str], longest: list[int]) -> CrossModalFusion | MulTFusion | None:
    member = config.WhichOneof("fusion")
    if member is None:
        return None
    if len(names) < 2:
        raise ConfigError(
            f"MSA has one modality, so {member} has nothing to bring together",
            config,
            member,
            hint=f"leave {member} out, or name more modalities",
        )
    if member == "mult":
        with settings_of(config.mult):
            return MulTFusion(config.width, longest, **kwargs_of(config.mult))
    cross = config.cross_modal
    if cross.primary and cross.primary not in names:
        raise ConfigError(
            f'primary "{cross.primary}" is no modality',
            cross,
            "primary",
            hint=suggest(cross.primary, names, what="modalities are"),
        )
    with settings_of(cross.blocks):
        return CrossModalFusion(
            config.width,
            longest,
            blocks=BlockSettings(**kwargs_of(cross.blocks)),
            primary=names.index(cross.primary) if cross.primary else 0,
            bidirectional=cross.bidirectional,
        )
