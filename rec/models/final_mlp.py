"""FinalMLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Model, flat_group, main_group, mlp_of, settings_of
from rec.modules.feature_gate import BilinearFusion, ConstantGate, FeatureGate
from rec.protos.models import final_mlp_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.FinalMLP)
class FinalMLP(Model):
    """Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023, arXiv:2304.00902.

    logits = fusion(mlp1(gate1(x)), mlp2(gate2(x))). x is group "deep" (a single group may have any
    name), the gates read groups of their own or are learned constants.
    """

    def __init__(self, config: pb.FinalMLP, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        if not config.use_fs:
            for field in ("fs_mlp", "fs1_input", "fs2_input"):
                if config.HasField(field):
                    raise ConfigError(f"{field} is set, but use_fs is false", config, field)
        group = main_group(groups, "deep", config)
        self.group, self.num_class = group.name, num_class
        self.mlp1 = mlp_of(config.mlp1, group.width)
        self.mlp2 = mlp_of(config.mlp2, group.width)
        self.use_fs = config.use_fs
        self.contexts: list[str] = []
        self.gates = nn.ModuleList()
        for field in ("fs1_input", "fs2_input") if self.use_fs else ():
            context = getattr(config, field)
            self.contexts.append(context)
            self.gates.append(_gate(config, groups, group.width, field, context))
        with settings_of(config):
            self.fusion = BilinearFusion(
                self.mlp1.out_features, self.mlp2.out_features, num_heads=config.num_heads, num_class=num_class
            )

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        x = groups[self.group]
        streams = [x, x]
        for i, (gate, context) in enumerate(zip(self.gates, self.contexts, strict=True)):
            streams[i] = gate(x, groups[context]) if context else gate(x)
        logits = self.fusion(self.mlp1(streams[0]), self.mlp2(streams[1]))
        return {"logits": logits.squeeze(1) if self.num_class == 1 else logits}


def _gate(config: pb.FinalMLP, groups: GroupShapes, width: int, field: str, context: str) -> nn.Module:
    """The gate of one stream: of a group, or a learned constant."""
    if not context:
        return ConstantGate(width)
    return FeatureGate(width, mlp_of(config.fs_mlp, flat_group(groups, context, config, field).width))
