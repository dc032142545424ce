"""Mamba4Rec: for clicks, with the target as last token, and for the next item."""

# B rows, N steps of all rows, V items, D width of a step
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.models.base import MODELS, Head, Model, catalogue_group, flat_group, mlp_of, sequence_group, settings_of
from rec.modules.linear import SMALL_GAIN, Linear
from rec.modules.mamba import Mamba4RecLayers
from rec.ops.jagged import append_row, row_at
from rec.protos import next_item_pb2
from rec.protos.models import mamba4rec_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.Mamba4Rec)
class Mamba4Rec(Model):
    """Liu et al., "Mamba4Rec: Towards Efficient Sequential Recommendation with Selective State Space Models".

    arXiv:2403.03900; LN and dropout on the steps, no positions, then Mamba layers. The next-item form is the
    paper's: the last state against the rows of the item table. The click form appends the target to the steps and
    reads its state, so that the score depends on it through every layer.
    """

    def __init__(self, config: pb.Mamba4Rec, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = sequence_group(groups, config.input, config, "input")
        with settings_of(config.layers):
            layers = Mamba4RecLayers(group.sequence_width, **kwargs_of(config.layers))
        form = config.WhichOneof("form")
        if form is None:
            raise ConfigError("Mamba4Rec has no form", config, hint="set ctr { ... } or next_item { ... }")
        self.form: nn.Module
        if form == "ctr":
            self.form = _Click(config, group, groups, layers, num_class)
        else:
            self.form = _NextItem(config.next_item, group, groups, layers)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"; of the next item to "user_embedding" and "item_embedding", see `NextItemTask`."""
        return self.form(groups)


class _Click(nn.Module):
    """The state of the target, the last token, into an MLP."""

    def __init__(
        self, config: pb.Mamba4Rec, group: GroupShape, groups: GroupShapes, layers: Mamba4RecLayers, num_class: int
    ) -> None:
        super().__init__()
        if group.query_width != group.sequence_width:
            raise ConfigError(
                f'group "{group.name}": the target is {group.query_width} wide, a step {group.sequence_width}',
                config,
                "input",
                hint="the target is the last step: list its features in the order of the sequence's, with the same "
                "embedding_dim",
            )
        self.sequence = group.name
        self.deep = ""
        width = group.sequence_width
        if config.ctr.deep_input:
            self.deep = config.ctr.deep_input
            width += flat_group(groups, self.deep, config.ctr, "deep_input").width
        self.layers = layers
        self.final = mlp_of(config.ctr.final, width)
        # The state comes out of a layer norm.
        self.head = Head(self.final.out_features, num_class=num_class, gain=SMALL_GAIN)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        lengths_B = groups[f"{self.sequence}.lengths"]
        steps_ND, longer_B = append_row(
            groups[f"{self.sequence}.sequence"], lengths_B, groups[f"{self.sequence}.query"]
        )
        state_BD = row_at(self.layers(steps_ND, longer_B), longer_B, lengths_B)
        if self.deep:
            state_BD = torch.cat([state_BD, groups[self.deep]], dim=1)
        return {"logits": self.head(self.final(state_BD))}


class _NextItem(nn.Module):
    """The last state beside the whole item table; in training, where asked for, the state of every step."""

    def __init__(
        self, config: next_item_pb2.NextItem, group: GroupShape, groups: GroupShapes, layers: Mamba4RecLayers
    ) -> None:
        super().__init__()
        catalogue = catalogue_group(groups, config.catalogue, config, "catalogue")
        (item, width), *_ = catalogue.features
        if item not in [name for name, _ in group.sequence]:
            raise ConfigError(
                f'the catalogue is of feature "{item}", which group "{group.name}" does not have',
                config,
                "catalogue",
                hint=f"name one of {', '.join(name for name, _ in group.sequence)} there",
            )
        if group.query_width:
            raise ConfigError(
                f'group "{group.name}" has a target ({", ".join(name for name, _ in group.query)}), which a next-item '
                "model does not read",
                config,
                hint="leave it out of the group, or use ctr",
            )
        if config.top_k > catalogue.rows:
            raise ConfigError(f"top_k is {config.top_k}, of {catalogue.rows} items", config, "top_k")
        self.sequence, self.catalogue = group.name, catalogue.name
        self.everywhere = config.train_on == next_item_pb2.NextItem.ALL_POSITIONS
        self.layers = layers
        # Steps of the items alone are compared as they are, which is the paper's form.
        same = group.sequence_width == width
        self.project = nn.Identity() if same else Linear(group.sequence_width, width, bias=False)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        lengths_B = groups[f"{self.sequence}.lengths"]
        states_ND = self.project(self.layers(groups[f"{self.sequence}.sequence"], lengths_B))
        predictions = {
            # 0 for a row without history: all items alike.
            "user_embedding": row_at(states_ND, lengths_B, lengths_B - 1),
            "item_embedding": groups[f"{self.catalogue}.catalogue"],
        }
        if self.training and self.everywhere:
            predictions["step_embedding"] = states_ND
        return predictions
