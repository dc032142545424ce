"""What every message must obey by its options: required fields set, unsupported fields not set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from rec.config.errors import ConfigError
from rec.config.limits import check_limits
from rec.config.options import no_effect, required, unsupported
from rec.config.proto import Field, Proto

_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def check_options(msg: Proto) -> list[ConfigError]:
    """Refuses missing required fields, set unsupported ones and nan, in a message and all below it.

    A field that is set to its default changes nothing and may stay.

    Returns:
        Warnings of fields that were set but change nothing.
    """
    warnings: list[ConfigError] = []
    check_limits(msg)
    for field, value in msg.ListFields():
        if field.message_type is None and not field.is_repeated and value == field.default_value:
            continue
        if field.cpp_type in _FLOATS and any(v != v for v in (value if field.is_repeated else [value])):
            raise ConfigError(
                f'"{field.name}" of {msg.DESCRIPTOR.name} is not a number', msg, field.name, hint="write a number"
            )
        if remedy := unsupported(field):
            raise ConfigError(f'"{field.name}" of {msg.DESCRIPTOR.name} is not supported', msg, field.name, hint=remedy)
        if why := no_effect(field):
            warnings.append(
                ConfigError(f'"{field.name}" of {msg.DESCRIPTOR.name} has no effect', msg, field.name, hint=why)
            )
    for field in msg.DESCRIPTOR.fields:
        if required(field) and not field.is_repeated and not msg.HasField(field.name):
            raise ConfigError(
                f'{msg.DESCRIPTOR.name} lacks "{field.name}", which is required', msg, hint=f"add {_sketch(field)}"
            )
        if required(field) and not field.is_repeated and getattr(msg, field.name) == "":
            raise ConfigError(
                f'"{field.name}" of {msg.DESCRIPTOR.name} is empty', msg, field.name, hint=f"set {_sketch(field)}"
            )
    for sub in _children(msg):
        warnings += check_options(sub)
    return warnings


def _children(msg: Proto) -> Iterator[Any]:
    for field, value in msg.ListFields():
        if field.message_type is None or field.message_type.file.package != "rec":
            continue
        if field.is_repeated:
            yield from value
        else:
            yield value


def _sketch(field: Field) -> str:
    if field.message_type is not None:
        return f"{field.name} {{ ... }}"
    if field.enum_type is not None:
        return f"{field.name}: {field.enum_type.values_by_number[field.default_value].name}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return f'{field.name}: "..."'
    return f"{field.name}: {field.default_value:g}" if field.default_value else f"{field.name}: ..."
