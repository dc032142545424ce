"""Objects that a config names by import path."""

from __future__ import annotations

import importlib
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.config.proto import Proto


def import_object(class_path: str, msg: Proto | None = None) -> Any:
    """The object at "package.module:Name" ("package.module.Name" works too).

    Args:
        class_path: where it is.
        msg: the message that names it in a field `class_path`, for the place of an error.

    Raises:
        ConfigError: naming the module that cannot be imported or the name that it lacks.
    """
    module_name, _, name = class_path.partition(":")
    if not name:
        module_name, _, name = class_path.rpartition(".")
    if not module_name or not name:
        raise ConfigError(
            f'class_path "{class_path}" is not an import path',
            msg,
            "class_path",
            hint='write "package.module:Name"',
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # whatever the user's module raises on import is told with its name
        missing = isinstance(e, ModuleNotFoundError) and module_name.startswith(e.name or "?")
        hint = (
            "install it, or put its folder on PYTHONPATH"
            if missing
            else "the module itself raised it when it was imported"
        )
        raise ConfigError(
            f'class_path "{class_path}": cannot import "{module_name}" ({type(e).__name__}: {e})',
            msg,
            "class_path",
            hint=hint,
        ) from e
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")]
            raise ConfigError(
                f'class_path "{class_path}": "{module_name}" has no "{part}"',
                msg,
                "class_path",
                hint=suggest(part, known, what="its names"),
            )
        found = getattr(found, part)
    return found


def custom_kwargs(custom: Proto) -> dict[str, Any]:
    """Keyword arguments of a `Custom` message; integral numbers become int (Struct has doubles only)."""
    return struct_to_dict(custom.kwargs)


def struct_to_dict(struct: Struct) -> dict[str, Any]:
    """A protobuf Struct as plain Python values."""
    return {key: _value(value) for key, value in struct.fields.items()}


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "struct_value":
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [_value(v) for v in value.list_value.values]
    return getattr(value, kind)
