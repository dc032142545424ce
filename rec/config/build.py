"""A tree of entries -> a message, with the place of everything kept."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct, Value

from rec.config.errors import ConfigError
from rec.config.fields import unknown_field
from rec.config.proto import Field, Proto
from rec.config.scalars import scalar_value
from rec.config.sourcemap import SourceMap
from rec.config.textproto import Block, Entry, ListValue, Loc, Scalar
from rec.config.tree import occurrences


class Builder:
    """Fills messages from entries; `sources` and `warnings` collect what is learnt on the way."""

    def __init__(self) -> None:
        self.sources = SourceMap()
        self.warnings: list[str] = []

    def fill(self, msg: Proto, entries: Sequence[Entry], loc: Loc) -> None:
        """Set the fields of `msg` that `entries` name.

        Raises:
            ConfigError: unknown field, wrong type, or two members of a oneof, with its place.
        """
        self.sources.add_message(msg, loc)
        descriptor = msg.DESCRIPTOR
        set_by: dict[str, Entry] = {}
        for written in entries:
            field = descriptor.fields_by_name.get(written.name)
            if field is None:
                if descriptor.full_name == "google.protobuf.Struct":
                    _fill_struct(msg, written)
                    continue
                raise unknown_field(descriptor, written)
            self._check_oneof(field, written, set_by)
            if isinstance(written.value, ListValue) and not field.is_repeated:
                raise ConfigError(
                    f'"{field.name}" of {descriptor.name} takes one value, not a list', where=str(written.loc)
                )
            if not field.is_repeated and field.name in set_by:
                self._warn_twice(field, written, set_by[field.name])
            set_by[field.name] = written
            for entry in occurrences(written):
                self._set(msg, field, entry)

    def _check_oneof(self, field: Field, entry: Entry, set_by: dict[str, Entry]) -> None:
        if field.containing_oneof is None:
            return
        for other in field.containing_oneof.fields:
            if other is not field and other.name in set_by:
                line = _line(set_by[other.name].loc, entry.loc)
                raise ConfigError(
                    f'"{field.name}" and "{other.name}" (line {line}) are both set, '
                    f"but {field.containing_type.name} takes only one {field.containing_oneof.name}",
                    hint="remove one of the two",
                    where=str(entry.loc),
                )

    def _warn_twice(self, field: Field, entry: Entry, before: Entry) -> None:
        does = "the two are merged" if field.message_type is not None else "this one counts"
        self.warnings.append(
            f'{entry.loc}: "{field.name}" is set twice in {field.containing_type.name} '
            f"(before at line {_line(before.loc, entry.loc)}); {does}"
        )

    def _set(self, msg: Proto, field: Field, entry: Entry) -> None:
        if field.message_type is None:
            value = scalar_value(field, entry)
            if field.is_repeated:
                getattr(msg, field.name).append(value)
            else:
                setattr(msg, field.name, value)
            self.sources.add_field(msg, field.name, entry.loc, single=not field.is_repeated)
            return
        if not isinstance(entry.value, Block):
            raise ConfigError(
                f'"{field.name}" of {field.containing_type.name} is a block of type {field.message_type.name}, '
                f"not the value {entry.value.text if isinstance(entry.value, Scalar) else '[...]'}",
                hint=f"write {field.name} {{ ... }}",
                where=str(entry.loc),
            )
        self.sources.add_field(msg, field.name, entry.loc, single=not field.is_repeated)
        if field.message_type.GetOptions().map_entry:
            self._set_map(msg, field, entry, entry.value)
            return
        if field.is_repeated:
            sub = getattr(msg, field.name).add()
        else:
            sub = getattr(msg, field.name)
            sub.SetInParent()
        self.fill(sub, entry.value.entries, entry.loc)

    def _set_map(self, msg: Proto, field: Field, entry: Entry, block: Block) -> None:
        by_name = {e.name: e for e in block.entries}
        if "key" not in by_name or "value" not in by_name:
            raise ConfigError(f'"{field.name}" takes {{ key: ... value ... }}', where=str(entry.loc))
        key_field, value_field = (field.message_type.fields_by_name[n] for n in ("key", "value"))
        key = scalar_value(key_field, by_name["key"])
        value = by_name["value"]
        if value_field.message_type is None:
            getattr(msg, field.name)[key] = scalar_value(value_field, value)
        elif isinstance(value.value, Block):
            self.fill(getattr(msg, field.name)[key], value.value.entries, value.loc)
        else:
            raise ConfigError(
                f'the value of "{field.name}" is a block of type {value_field.message_type.name}',
                hint="write value { ... }",
                where=str(value.loc),
            )


def _line(loc: Loc, here: Loc) -> str:
    """The line of `loc`, with its file when it is not the one of `here`."""
    return str(loc.line) if loc.file == here.file else f"{loc.line} of {loc.file}"


def _fill_struct(struct: Struct, entry: Entry) -> None:
    """`kwargs { gamma: 2 }` is short for `kwargs { fields { key: "gamma" value { number_value: 2 } } }`."""
    _fill_value(struct.fields[entry.name], entry.value)


def _fill_value(target: Value, value: Scalar | Block | ListValue) -> None:
    if isinstance(value, Block):
        target.struct_value.SetInParent()
        for entry in value.entries:
            _fill_struct(target.struct_value, entry)
    elif isinstance(value, ListValue):
        target.list_value.SetInParent()
        for item in value.items:
            _fill_value(target.list_value.values.add(), item)
    elif value.kind == "string":
        target.string_value = value.text
    elif value.kind == "word" and value.text in ("true", "false"):
        target.bool_value = value.text == "true"
    else:
        number = _number(value)
        target.number_value = number


def _number(value: Scalar) -> float:
    try:
        return float(value.text)
    except ValueError:
        raise ConfigError(
            f"{value.text} is neither a number, true, false nor a string",
            hint=f'write "{value.text}" if a string is meant',
            where=str(value.loc),
        ) from None
