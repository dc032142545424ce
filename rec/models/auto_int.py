"""AutoInt and AutoInt+."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from rec.config.kwargs import kwargs_of
from rec.models.base import (
    MODELS,
    Head,
    Model,
    fields_of,
    flat_group,
    main_group,
    mlp_of,
    refuse_shared_terms,
    settings_of,
)
from rec.modules.field_attention import FieldAttention
from rec.protos.models import auto_int_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.AutoInt)
class AutoInt(Model):
    """Song et al., "AutoInt: Automatic Feature Interaction Learning ...", CIKM 2019, arXiv:1810.11921.

    logit = w flatten(attention(fields)) + b, Eq. 9; with `deep` (AutoInt+, Sec. 5.5.2) an MLP's logit
    and with a group "wide" its sum are added. Fields are those of group "fm" if there is one, else of
    "deep"; a single group may have any name.
    """

    def __init__(self, config: pb.AutoInt, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        self.has_wide = "wide" in groups
        if self.has_wide:
            flat_group(groups, "wide", config)
            refuse_shared_terms(config, num_class)
        deep = main_group(groups, "deep", config)
        self.deep_group = deep.name
        self.fm_group = "fm" if "fm" in groups else deep.name
        self.num_fields, self.field_width = fields_of(flat_group(groups, self.fm_group, config), config)
        with settings_of(config.attention):
            self.attention = FieldAttention(self.field_width, **kwargs_of(config.attention))
        self.head = Head(self.num_fields * self.attention.out_features, num_class=num_class)
        self.deep = self.deep_head = None
        if config.HasField("deep"):
            self.deep = mlp_of(config.deep, deep.width)
            # The first head has the constant.
            self.deep_head = Head(self.deep.out_features, num_class=num_class, bias=False)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        fields_BFD = groups[self.fm_group].reshape(-1, self.num_fields, self.field_width)
        logits = self.head(self.attention(fields_BFD).flatten(1))
        if self.deep is not None and self.deep_head is not None:
            logits = logits + self.deep_head(self.deep(groups[self.deep_group]))
        if self.has_wide:
            logits = logits + groups["wide"].sum(dim=1)
        return {"logits": logits}
