"""MDAF: a static and a sequential branch, mixed by a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Head, Model, flat_group, mlp_of, sequence_group, settings_of
from rec.models.fusing import HeadsOfFields, network_settings
from rec.models.sequences import SequenceReader
from rec.modules.fusing_cross import FusingCrossLayers
from rec.modules.gated_fusion import GatedFusion, Projection
from rec.modules.linear import SMALL_GAIN
from rec.modules.precision import full_precision
from rec.protos.models import dcn_v3_pb2
from rec.protos.models import mdaf_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.MDAF)
class MDAF(Model):
    """DCNv3 beside a sequence encoder that sees the target, under a gate (docs/models/mdaf.md).

    s = projection of the static branch, r = projection of [sequence encoder, target], both layer-normed;
    f = g s + (1 - g) r; logit = head(MLP(f)). The gate g is the weight of the static branch. A branch that
    the config leaves out has no parameters, and the other stands without a gate.
    """

    def __init__(self, config: pb.MDAF, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        both = config.HasField("static") and config.HasField("sequence")
        if not config.HasField("static") and not config.HasField("sequence"):
            raise ConfigError("MDAF has no branch", config, hint="add static { ... }, sequence { ... } or both")
        if not both and (config.branch_logits or config.HasField("fusion")):
            raise ConfigError(
                "MDAF has one branch, so there is nothing to mix",
                config,
                "branch_logits" if config.branch_logits else "fusion",
                hint="leave fusion and branch_logits out, or add the other branch",
            )
        width = config.branch_dim
        with settings_of(config):
            self.static = _Static(config, groups) if config.HasField("static") else None
            self.sequence = _Sequence(config, groups) if config.HasField("sequence") else None
        with settings_of(config.fusion):
            self.fusion = GatedFusion(width, **kwargs_of(config.fusion)) if both else None
        self.final = mlp_of(config.final, width)
        # Behind layer norms: without the small gain logits would start at order 1.
        self.head = Head(self.final.out_features, num_class=num_class, gain=SMALL_GAIN)
        self.heads = nn.ModuleDict()
        if config.branch_logits:
            for name in ("static", "sequence"):
                self.heads[name] = Head(width, num_class=num_class, gain=SMALL_GAIN)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"; with both branches "gate"; on request "logits_static" and "logits_sequence"."""
        branches = {}
        if self.static is not None:
            branches["static"] = self.static(groups)
        if self.sequence is not None:
            branches["sequence"] = self.sequence(groups)
        if self.fusion is None or self.sequence is None:
            (mixed_BD,) = branches.values()
            return {"logits": self.head(self.final(mixed_BD))}
        lengths_B = groups[f"{self.sequence.reader.group}.lengths"]
        mixed_BD, gate = self.fusion(branches["static"], branches["sequence"], lengths_B > 0)
        predictions = {"logits": self.head(self.final(mixed_BD))}
        for name, head in self.heads.items():
            predictions[f"logits_{name}"] = head(branches[name])
        predictions["gate"] = gate
        return predictions


class _Static(nn.Module):
    """The static branch: [B, D]."""

    def __init__(self, config: pb.MDAF, groups: GroupShapes) -> None:
        super().__init__()
        group = flat_group(groups, config.static.input, config.static, "input")
        self.group = group.name
        if config.static.WhichOneof("encoder") is None:
            raise ConfigError("the static branch has no encoder", config.static, hint="add dcn_v3 {} or mlp { ... }")
        self.encoder: nn.Module
        if config.static.HasField("dcn_v3"):
            self.encoder, width = _CrossBranch(config.static.dcn_v3, group), group.width
        else:
            self.encoder = mlp_of(config.static.mlp, group.width)
            width = self.encoder.out_features
        self.project = Projection(width, config.branch_dim, dropout_ratio=config.dropout_ratio)

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        return self.project(self.encoder(groups[self.group]))


class _CrossBranch(nn.Module):
    """The mean of DCNv3's deep and shallow networks, without their logits: heads would learn nothing here."""

    def __init__(self, config: dcn_v3_pb2.DCNV3, group: GroupShape) -> None:
        super().__init__()
        if config.HasField("average"):
            raise ConfigError(
                "average has no effect in a branch: vectors are averaged, not predictions",
                config,
                "average",
                hint="leave it out",
            )
        self.heads = HeadsOfFields(config, group)
        deep, shallow = network_settings(config)
        self.deep = FusingCrossLayers(self.heads.width, **deep)
        self.shallow = FusingCrossLayers(self.heads.width, **shallow)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F * width of a field] -> [B, F * width of a field]."""
        # Degree 2^layers: past half precision's range (see DCNV3).
        with full_precision(x):
            x_BHD = self.heads(x)
            return (0.5 * (self.deep(x_BHD) + self.shallow(x_BHD))).flatten(1)


class _Sequence(nn.Module):
    """The sequential branch: [B, D]."""

    def __init__(self, config: pb.MDAF, groups: GroupShapes) -> None:
        super().__init__()
        group = sequence_group(groups, config.sequence.input, config.sequence, "input")
        self.reader = SequenceReader(config.sequence.encoder, group)
        width = self.reader.out_features + group.query_width
        self.project = Projection(width, config.branch_dim, dropout_ratio=config.dropout_ratio)

    def forward(self, groups: dict[str, Tensor]) -> Tensor:
        encoded = self.reader(groups)
        if self.reader.has_query:
            encoded = torch.cat([encoded, groups[f"{self.reader.group}.query"]], dim=1)
        return self.project(encoded)
