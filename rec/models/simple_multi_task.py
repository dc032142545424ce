"""Tasks that share embeddings only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rec.models.base import MODELS, Model, only_group, task_heads
from rec.protos.models import simple_multi_task_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.SimpleMultiTask)
class SimpleMultiTask(Model):
    """A tower per task over one feature group of any name; nothing but the embeddings is shared."""

    def __init__(self, config: pb.SimpleMultiTask, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = only_group(groups, config)
        self.group = group.name
        self.tasks, self.towers = task_heads(config, config.task_towers, group.width)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits_<tower>"."""
        x = groups[self.group]
        return {f"logits_{name}": tower(x) for name, tower in zip(self.tasks, self.towers, strict=True)}
