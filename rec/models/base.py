"""What every model is, and what their constructors share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.config.registry import Registry
from rec.modules.linear import Linear
from rec.modules.mlp import MLP
from rec.modules.tower import Tower
from rec.protos import simi_pb2, tower_pb2

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes

MODELS = Registry("model", "rec.models")


class Model(nn.Module):
    """From the embedded groups to named predictions; knows no labels, losses, files or devices.

    A subclass takes `(config, groups, *, num_class)`, where config is its own message and groups
    tells widths before any data; a class named in `custom_model` takes `(groups, *, num_class, ...)`.
    The config is read in the constructor only, and `forward` never branches on tensors, so that a
    model can be traced by FX and scripted.

    Attributes:
        item_width: of a retrieval model, width D of "item_embedding".
    """

    item_width: int = 0

    @abstractmethod
    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predictions by name.

        Args:
            groups: outputs of the embedding group, [B, width] each (see rec.embedding.group).
        Returns:
            "logits" [B], or [B, C] with several classes; of a multi-task model "logits_<tower>"; of a retrieval
            model "user_embedding" [B, D] and "item_embedding" [items, D]; auxiliary outputs under names of their own.
        """


class Head(nn.Module):
    """The last layer: hidden units to logits.

    Args:
        in_features: width of its input.
        num_class: 1 gives one logit a row.
        bias: whether it adds a constant.
        gain: factor of the initial weights; small behind a layer norm, so that logits start near 0.
    """

    def __init__(self, in_features: int, *, num_class: int = 1, bias: bool = True, gain: float = 1.0) -> None:
        super().__init__()
        self.num_class = num_class
        self.linear = Linear(in_features, num_class, bias=bias, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_features] -> [B] for one class, [B, C] for several."""
        logits = self.linear(x)
        return logits.squeeze(-1) if self.num_class == 1 else logits


@contextmanager
def settings_of(config: Message) -> Iterator[None]:
    """Turn a layer's ValueError into a ConfigError at the message that configured it.

    A text that begins with the name of a field points to that field.
    """
    try:
        yield
    except ValueError as e:
        field = str(e).partition(" ")[0]
        known = config.DESCRIPTOR.fields_by_name
        raise ConfigError(str(e), config, field if field in known else None) from e


def mlp_of(config: Message, in_features: int) -> MLP:
    """The MLP that an `MLP` message asks for."""
    with settings_of(config):
        return MLP(in_features, **kwargs_of(config))


def tower_of(config: Any, tower: Any, in_features: int) -> Tower:
    """A tower of a retrieval model.

    Args:
        config: the model's message, with `output_dim` and `similarity`.
        tower: the tower's, with an `mlp`.
        in_features: width of what it reads.
    """
    if config.output_dim < 0:
        raise ConfigError(f"output_dim is {config.output_dim}, expected >= 0", config, "output_dim")
    return Tower(
        mlp_of(tower.mlp, in_features),
        output_dim=config.output_dim,
        normalise=config.similarity == simi_pb2.COSINE,
    )


def same_width(config: Message, *, user: int, item: int) -> None:
    """Refuse towers whose vectors have no inner product.

    Args:
        config: the model's message, with `output_dim`.
        user: width of its vector.
        item: likewise.
    """
    if user != item:
        raise ConfigError(
            f"the user's vector is {user} wide, an item's {item}",
            config,
            "output_dim",
            hint="set it, or let the hidden_units of both towers end alike",
        )


def flat_group(groups: GroupShapes, name: str, config: Message, field: str | None = None) -> GroupShape:
    """The group of that name, which must have one vector a row.

    Args:
        groups: all groups.
        name: of the group.
        config: the message that asks for it, the place of an error.
        field: the field of `config` that names it.
    """
    group = _group(groups, name, config, field)
    if group.type not in ("DEEP", "WIDE"):
        raise ConfigError(
            f'group "{name}" is of type {group.type}; {config.DESCRIPTOR.name} reads a DEEP group here',
            config,
            field,
            hint="nest the sequence in a DEEP group, as sequence_groups with sequence_encoders",
        )
    return group


def sequence_group(groups: GroupShapes, name: str, config: Message, field: str | None = None) -> GroupShape:
    """The group of that name, which must have steps; the arguments are those of `flat_group`."""
    group = _group(groups, name, config, field)
    if group.type not in ("SEQUENCE", "JAGGED_SEQUENCE"):
        raise ConfigError(
            f'group "{name}" is of type {group.type}; {config.DESCRIPTOR.name} reads a SEQUENCE group',
            config,
            field,
            hint="set group_type: SEQUENCE",
        )
    return group


def history_group(groups: GroupShapes, name: str, config: Message, field: str | None = None) -> GroupShape:
    """The group of that name, which must have steps and no target; the arguments are those of `flat_group`."""
    group = sequence_group(groups, name, config, field)
    if group.query_width:
        raise ConfigError(
            f'group "{group.name}" has a target ({", ".join(name for name, _ in group.query)}), which '
            f"{config.DESCRIPTOR.name} does not read: users are served without items",
            config,
            field,
            hint="leave it out of the group",
        )
    return group


def catalogue_group(groups: GroupShapes, name: str, config: Message, field: str | None = None) -> GroupShape:
    """The group of that name, which must be a whole table; the arguments are those of `flat_group`."""
    group = _group(groups, name, config, field)
    if group.type != "CATALOGUE":
        raise ConfigError(
            f'group "{group.name}" is of type {group.type}; {config.DESCRIPTOR.name} reads a CATALOGUE group here',
            config,
            field,
            hint="set group_type: CATALOGUE, with the one feature whose ids are recommended",
        )
    return group


def _group(groups: GroupShapes, name: str, config: Message, field: str | None) -> GroupShape:
    try:
        return groups[name]
    except ConfigError as e:
        # The groups know what there is, the model where it was asked for.
        raise ConfigError(e.text, config, field, hint=e.hint) from e


def only_group(groups: GroupShapes, config: Message) -> GroupShape:
    """The input of a model that takes one group, whatever its name."""
    if len(groups) != 1:
        raise ConfigError(
            f"{config.DESCRIPTOR.name} reads one feature group, here are {len(groups)} ({', '.join(groups)})",
            config,
            hint="put the features into one group, or choose a model that reads several",
        )
    return flat_group(groups, next(iter(groups)), config)


def main_group(groups: GroupShapes, name: str, config: Message) -> GroupShape:
    """The group of that name; a single group is taken whatever its name."""
    return flat_group(groups, next(iter(groups)) if len(groups) == 1 else name, config)


def fields_of(group: GroupShape, config: Message) -> tuple[int, int]:
    """Number and width of a group's fields, which must be equally wide.

    Args:
        group: a DEEP group that the model reads as [B, F, D].
        config: the model's message, the place of an error.
    Returns:
        (F, D)
    """
    widths = [width for _, width in group.features]
    usual = max(set(widths), key=widths.count)
    odd = [f'"{name}" ({width})' for name, width in group.features if width != usual]
    if odd:
        raise ConfigError(
            f'group "{group.name}": {config.DESCRIPTOR.name} needs features of equal width; '
            f"most have {usual}, but {', '.join(odd)}",
            config,
            hint=f"set embedding_dim: {usual} on those, give a dense feature an embedding "
            "(boundaries, autodis or mlp), or leave them out of the group",
        )
    return len(widths), usual


def refuse_shared_terms(config: Message, num_class: int, unless: str | None = None) -> None:
    """Refuse several classes where a model adds one and the same number to the logits of all.

    A softmax does not see that number, and what makes it would never learn.

    Args:
        config: the model's message.
        num_class: number of classes.
        unless: field of `config` that, when set, mixes the terms by an MLP.
    """
    if num_class > 1 and not (unless and config.HasField(unless)):
        raise ConfigError(
            f"{config.DESCRIPTOR.name} adds one number to the logits of all {num_class} classes, "
            "which a softmax does not see",
            config,
            hint=f"set {unless} {{ hidden_units: [...] }}" if unless else 'leave group "wide" out',
        )


def task_heads(
    config: Message, task_towers: Sequence[tower_pb2.TaskTower], in_features: int
) -> tuple[list[str], nn.ModuleList]:
    """Names of the tasks and a tower (MLP, then logits) for each.

    Args:
        config: the model's message, the place of an error.
        task_towers: its tasks.
        in_features: width of what every tower reads.
    """
    names = [tower.tower_name for tower in task_towers]
    if not names:
        raise ConfigError(f"{config.DESCRIPTOR.name} has no task_towers", config, hint="add task_towers { ... }")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f'tower_name "{name}" is used twice', task_towers[i], "tower_name")
    towers = nn.ModuleList()
    for tower in task_towers:
        mlp = mlp_of(tower.mlp, in_features)
        towers.append(nn.Sequential(mlp, Head(mlp.out_features, num_class=tower.num_class)))
    return names, towers
