"""DIEN: how the interest in the target evolved."""

# B rows, N steps of all rows, H width of a state
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.errors import ConfigError, DataError
from rec.models.base import MODELS, Head, Model, flat_group, mlp_of, sequence_group
from rec.modules.interest import AttentionalGRU, InterestEvolution, next_click_loss
from rec.ops.jagged import row_at
from rec.protos.models import dien_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes


@MODELS.register(pb.DIEN)
class DIEN(Model):
    """Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019, arXiv:1809.03672.

    interests h = GRU(steps); a = softmax of h W q; last state of AUGRU(h, a), beside target and DEEP group, into an
    MLP. In training "next_click" [B] is the auxiliary loss of each row, which the config adds to the total.
    """

    def __init__(self, config: pb.DIEN, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        group = sequence_group(groups, config.input, config, "input")
        if group.query_width == 0:
            raise ConfigError(
                f'group "{group.name}" has no target',
                config,
                "input",
                hint="add the target's features (no sequences) to the group",
            )
        width = config.hidden_dim or group.sequence_width
        if config.next_click and width != group.sequence_width:
            raise ConfigError(
                f"a state is {width} wide, a step {group.sequence_width}: next_click compares them",
                config,
                "hidden_dim",
                hint="leave hidden_dim out, or set next_click: false",
            )
        self.group, self.next_click = group.name, config.next_click
        self.negative = _negatives(config, group, groups)
        self.extract = AttentionalGRU(group.sequence_width, width)
        self.evolve = InterestEvolution(group.query_width, width)
        self.deep = config.deep_input
        width += group.query_width
        if self.deep:
            width += flat_group(groups, self.deep, config, "deep_input").width
        self.final = mlp_of(config.final, width)
        self.head = Head(self.final.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits", and in training "next_click" [B]."""
        query_BQ, steps_ND, lengths_B = (groups[f"{self.group}.{part}"] for part in ("query", "sequence", "lengths"))
        interests_NH = self.extract(steps_ND, lengths_B)
        evolved_NH = self.evolve(query_BQ, interests_NH, lengths_B)
        parts = [row_at(evolved_NH, lengths_B, lengths_B - 1), query_BQ]
        if self.deep:
            parts.append(groups[self.deep])
        predictions = {"logits": self.head(self.final(torch.cat(parts, dim=1)))}
        if self.training and self.next_click:
            negatives_ND = self._negatives_of(groups)
            predictions["next_click"] = next_click_loss(interests_NH, steps_ND, negatives_ND, lengths_B)
        return predictions

    def _negatives_of(self, groups: dict[str, Tensor]) -> Tensor:
        """A step that was not clicked, in place of each step: [N, D]."""
        steps_ND = groups[f"{self.group}.sequence"]
        if not self.negative:
            return steps_ND[torch.randperm(steps_ND.shape[0], device=steps_ND.device)]
        if not torch.equal(groups[f"{self.negative}.lengths"], groups[f"{self.group}.lengths"]):
            raise DataError(
                f'sequence groups "{self.group}" and "{self.negative}" have rows of different length: DIEN takes one '
                "negative in place of each step"
            )
        return groups[f"{self.negative}.sequence"]


def _negatives(config: pb.DIEN, group: GroupShape, groups: GroupShapes) -> str:
    """Name of the group of negatives, "" for none."""
    if not config.negative_input:
        return ""
    if not config.next_click:
        raise ConfigError(
            "negative_input has no effect without next_click", config, "negative_input", hint="leave it out"
        )
    negatives = sequence_group(groups, config.negative_input, config, "negative_input")
    if negatives.sequence_width != group.sequence_width or negatives.query_width:
        raise ConfigError(
            f'group "{negatives.name}": its steps are {negatives.sequence_width} wide, those of "{group.name}" '
            f"{group.sequence_width}",
            config,
            "negative_input",
            hint="list the features of the steps in the same order with the same widths, and no target",
        )
    return negatives.name
