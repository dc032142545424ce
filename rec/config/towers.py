"""Two-tower models as their messages say it: which groups each tower reads. Readers and tables ask the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rec.config.options import own_tables
from rec.config.proto import Proto

_INPUTS = ("input", "augment_input", "history_input")
# Ends the names of a tower's own tables, where the other tower has one of the same name.
ITEM_SUFFIX = "item_tower"
# Ends the names of the tables of augmented vectors.
AUGMENT_SUFFIX = "augment"


@dataclass(frozen=True)
class Towers:
    """Groups of a retrieval model.

    Attributes:
        user, item: names of the groups that each tower reads.
        augment: those of them that hold a free vector for each id (DAT).
        own_tables: towers do not share tables, whatever the features say.
    """

    user: tuple[str, ...]
    item: tuple[str, ...]
    augment: tuple[str, ...]
    own_tables: bool

    def features(self, model_config: Proto, side: str) -> list[str]:
        """Names of the features that a tower reads, each once.

        Args:
            model_config: its feature groups.
            side: "user" or "item".
        """
        wanted = self.user if side == "user" else self.item
        names: list[str] = []
        for group in model_config.feature_groups:
            if group.group_name in wanted:
                for part in (group, *group.sequence_groups):
                    names += part.feature_names
        return list(dict.fromkeys(names))


def towers_of(model_config: Proto) -> Towers | None:
    """The towers of a retrieval model, None for any other."""
    member = model_config.WhichOneof("model")
    if member is None:
        return None
    model = getattr(model_config, member)
    fields = model.DESCRIPTOR.fields_by_name
    if "user_tower" not in fields or "item_tower" not in fields:
        return None
    sides = [inputs_of(model.user_tower), inputs_of(model.item_tower)]
    augment = [getattr(tower, "augment_input", "") for tower in (model.user_tower, model.item_tower)]
    return Towers(
        user=tuple(sides[0]), item=tuple(sides[1]), augment=tuple(filter(None, augment)), own_tables=own_tables(model)
    )


def inputs_of(tower: Proto) -> Sequence[str]:
    """Names of the groups that a tower's message names."""
    return [name for field in _INPUTS if (name := getattr(tower, field, ""))]
