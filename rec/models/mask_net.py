"""MaskNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Head, Model, mlp_of, only_group, settings_of
from rec.modules.mask_net import FieldNorm, MaskBlock
from rec.protos import module_pb2
from rec.protos.models import mask_net_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.MaskNet)
class MaskNet(Model):
    """Wang et al., "MaskNet: ... Feature-Wise Multiplication ...", DLP-KDD 2021, arXiv:2102.07619.

    Parallel: every block masks the normed fields, and an MLP reads the blocks side by side.
    Serial: the first block masks the normed fields, each further one the output of the one before.
    The masks always come from the fields as they are. One group of any name.
    """

    def __init__(self, config: pb.MaskNet, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = only_group(groups, config)
        self.group = group.name
        module = config.mask_net_module
        if module.n_mask_blocks < 1:
            raise ConfigError("MaskNet has no mask block", module, "n_mask_blocks", hint="set n_mask_blocks: 3")
        self.norm = _embedding_norm(module, [width for _, width in group.features])
        self.parallel = module.use_parallel
        hidden = module.mask_block.hidden_dim
        inputs = [group.width if self.parallel or i == 0 else hidden for i in range(module.n_mask_blocks)]
        with settings_of(module.mask_block):
            kwargs = kwargs_of(module.mask_block)
            self.blocks = nn.ModuleList(MaskBlock(width, group.width, **kwargs) for width in inputs)
        self.top = mlp_of(module.top_mlp, hidden * (module.n_mask_blocks if self.parallel else 1))
        self.head = Head(self.top.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        fields_BD = groups[self.group]
        h = self.norm(fields_BD)
        if self.parallel:
            h = torch.cat([block(h, fields_BD) for block in self.blocks], dim=1)
        else:
            for block in self.blocks:
                h = block(h, fields_BD)
        return {"logits": self.head(self.top(h))}


def _embedding_norm(config: module_pb2.MaskNetModule, widths: list[int]) -> nn.Module:
    """What `emb_norm` asks for."""
    if config.emb_norm == module_pb2.MaskNetModule.FIELD:
        return FieldNorm(widths)
    if config.emb_norm == module_pb2.MaskNetModule.GROUP:
        return nn.LayerNorm(sum(widths))
    return nn.Identity()
