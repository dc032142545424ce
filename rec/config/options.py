"""What our proto options say of a field: required, unsupported."""

from __future__ import annotations

from functools import cache

from rec.config.proto import EnumValue, Field, Proto
from rec.protos import options_pb2


@cache
def required(field: Field) -> bool:
    """Whether loading must fail when the field is missing."""
    return field.GetOptions().Extensions[options_pb2.required]


@cache
def unsupported(field: Field) -> str:
    """What to do instead of setting this field, or "" when it is supported."""
    return field.GetOptions().Extensions[options_pb2.unsupported]


@cache
def unsupported_value(value: EnumValue) -> str:
    """What to do instead of this enum value, or "" when it is supported."""
    return value.GetOptions().Extensions[options_pb2.unsupported_value]


@cache
def no_effect(field: Field) -> str:
    """Why setting this field changes nothing, or "" when it does."""
    return field.GetOptions().Extensions[options_pb2.no_effect]


def own_tables(msg: Proto) -> bool:
    """Whether the towers of a model have tables of their own."""
    return msg.DESCRIPTOR.GetOptions().Extensions[options_pb2.own_tables]


def needs_task_towers(msg: Proto) -> bool:
    """Whether a model cannot do without task_towers."""
    optional = msg.DESCRIPTOR.GetOptions().Extensions[options_pb2.task_towers_optional]
    return "task_towers" in msg.DESCRIPTOR.fields_by_name and not optional


def several_interests(msg: Proto) -> bool:
    """Whether users of a retrieval model have several vectors."""
    return msg.DESCRIPTOR.GetOptions().Extensions[options_pb2.several_interests]


def members(msg: Proto | type[Proto], oneof: str) -> list[str]:
    """Names of the supported members of a oneof."""
    return [f.name for f in msg.DESCRIPTOR.oneofs_by_name[oneof].fields if not unsupported(f)]
