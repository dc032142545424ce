"""Multi-gate Mixture of Experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Model, mlp_of, only_group, task_heads
from rec.modules.experts import GatedExperts
from rec.protos.models import mmoe_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.MMoE)
class MMoE(Model):
    """Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate ...", KDD 2018.

    Every task reads its own mixture of the shared experts; logits_t = tower_t(sum_e g_te expert_e).
    One group of any name; the number of classes is each tower's.
    """

    def __init__(self, config: pb.MMoE, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = only_group(groups, config)
        self.group = group.name
        if config.num_expert < 1:
            raise ConfigError("MMoE has no expert", config, "num_expert", hint="set num_expert: 3")
        self.mixture = GatedExperts(
            [mlp_of(config.expert_mlp, group.width) for _ in range(config.num_expert)],
            # Without gate_mlp an empty MLP, the identity: a linear gate.
            [mlp_of(config.gate_mlp, group.width) for _ in config.task_towers],
        )
        self.tasks, self.towers = task_heads(config, config.task_towers, self.mixture.out_features)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits_<tower>"."""
        mixed = self.mixture(groups[self.group])
        return {f"logits_{name}": tower(x) for name, tower, x in zip(self.tasks, self.towers, mixed, strict=True)}
