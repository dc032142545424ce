"""What every model is, and what their constructors share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from google.protobuf.message import Message
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.config.registry import Registry
from rec.modules.linear import Linear
from rec.modules.mlp import MLP

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShape, GroupShapes

MODELS = Registry("model", "rec.models")


class Model(nn.Module):
    """From the embedded groups to named predictions; knows no labels, losses, files or devices.

    A subclass takes `(config, groups, *, num_class)`, where config is its own message and groups
    tells widths before any data; a class named in `custom_model` takes `(groups, *, num_class, ...)`.
    The config is read in the constructor only, and `forward` never branches on tensors, so that a
    model can be traced by FX and scripted.
    """

    @abstractmethod
    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predictions by name.

        Args:
            groups: outputs of the embedding group, [B, width] each (see rec.embedding.group).
        Returns:
            "logits" [B], or [B, C] with several classes; of a multi-task model "logits_<tower>";
            auxiliary outputs under names of their own.
        """


class Head(nn.Module):
    """The last layer: hidden units to logits.

    Args:
        in_features: width of its input.
        num_class: 1 gives one logit a row.
        bias: whether it adds a constant.
    """

    def __init__(self, in_features: int, *, num_class: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.num_class = num_class
        self.linear = Linear(in_features, num_class, bias=bias)

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


def only_group(groups: GroupShapes, config: Message) -> GroupShape:
    """The input of a model that takes one group, whatever its name."""
    if len(groups) != 1:
        raise ConfigError(
            f"{config.DESCRIPTOR.name} reads one feature group, here are {len(groups)} ({', '.join(groups)})",
            config,
            hint="put the features into one group, or choose a model that reads several",
        )
    return next(iter(groups.values()))


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
