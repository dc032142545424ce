"""What to say of a field name that a message does not have."""

from __future__ import annotations

from functools import cache

from rec.config.errors import ConfigError
from rec.config.names import listed, nearest
from rec.config.proto import Field, MessageType
from rec.config.textproto import Entry
from rec.protos import pipeline_pb2


def unknown_field(message: MessageType, entry: Entry) -> ConfigError:
    """An error with the nearest field, or the block that the field belongs to."""
    name = entry.name
    return ConfigError(f'{message.name} has no field "{name}"', hint=_remedy(message, name), where=str(entry.loc))


def _remedy(message: MessageType, name: str) -> str:
    # The exact name in a block inside this one is a better guess than a similar name here.
    for child in message.fields:
        if child.message_type is not None and name in child.message_type.fields_by_name:
            return f'"{name}" is a field of {child.message_type.name}: write {child.name} {{ {name} ... }}'
    near = nearest(name, message.fields_by_name)
    if near is not None:
        return f'did you mean "{near}"?'
    owners = _owners().get(name, [])
    if owners:
        places = " or ".join(owners[:3]) + (" and others" if len(owners) > 3 else "")
        return f'"{name}" is a field of {places}'
    near = nearest(name, _owners())
    known = f"it has {listed(message.fields_by_name)}" if message.fields else "it has no fields"
    if near is not None and len(name) > 3:
        return f'{known}; "{near}" is a field of {" or ".join(_owners()[near][:3])}'
    return known


@cache
def _owners() -> dict[str, list[str]]:
    """Field name -> messages that have it, as "train_config (TrainConfig)" where one field leads there."""
    owners: dict[str, list[str]] = {}
    for message, field in reachable():
        label = message.name if field is None else f"{field.name} ({message.name})"
        for name in message.fields_by_name:
            owners.setdefault(name, []).append(label)
    return owners


@cache
def reachable() -> tuple[tuple[MessageType, Field | None], ...]:
    """Every message of the schema once, with the first field that leads to it, breadth first."""
    root = pipeline_pb2.EasyRecConfig.DESCRIPTOR
    found: dict[str, tuple[MessageType, Field | None]] = {root.full_name: (root, None)}
    queue = [root]
    while queue:
        for field in queue.pop(0).fields:
            child = field.message_type
            if child is not None and child.full_name not in found:
                found[child.full_name] = (child, field)
                queue.append(child)
    return tuple(found.values())
