"""A message as keyword arguments of a layer."""

from __future__ import annotations

from typing import Any

from rec.config.options import unsupported
from rec.config.proto import Field, Proto


def kwargs_of(msg: Proto, *exclude: str) -> dict[str, Any]:
    """Scalar and repeated scalar fields of a message by name, declared defaults included.

    Sub-messages are left out (they are other layers' arguments), and so is what is marked
    unsupported. Enums come by name, repeated fields as lists. Not json_format: that drops
    defaults and turns uint64 into strings.

    Args:
        msg: any config message.
        exclude: names of fields to leave out.
    """
    kwargs: dict[str, Any] = {}
    for field in msg.DESCRIPTOR.fields:
        if field.name in exclude or field.message_type is not None or unsupported(field):
            continue
        value = getattr(msg, field.name)
        if field.is_repeated:
            kwargs[field.name] = [_plain(field, v) for v in value]
        else:
            kwargs[field.name] = _plain(field, value)
    return kwargs


def _plain(field: Field, value: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
