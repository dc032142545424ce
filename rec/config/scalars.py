"""Scalar values of a field from what was written, with an error that says what the field takes."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor as F

from rec.config.errors import ConfigError
from rec.config.names import listed, nearest
from rec.config.options import required, unsupported_value
from rec.config.proto import Field
from rec.config.textproto import Block, Entry, Scalar

_INTEGERS = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_BOOLS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
_INFINITE = {"inf", "infinity", "nan", "-inf", "-infinity", "-nan"}


def scalar_value(field: Field, entry: Entry) -> bool | int | float | str:
    """The value of a scalar field.

    Raises:
        ConfigError: when what is written is no value of the field's type.
    """
    value = entry.value
    if isinstance(value, Block):
        raise _wrong(field, entry, "a block { ... }", f"write {field.name}: {_example(field)}")
    if not isinstance(value, Scalar):
        raise _wrong(field, entry, "a list", f"write {field.name}: {_example(field)}")
    if field.cpp_type == F.CPPTYPE_STRING:
        if value.kind != "string":
            raise _wrong(field, entry, f"the bare {value.kind} {value.text}", f'write {field.name}: "{value.text}"')
        return value.text
    if field.cpp_type == F.CPPTYPE_ENUM:
        return _enum(field, entry, value)
    if value.kind == "string":
        bare = f"write {field.name}: {value.text}, without quotes" if _fits(field, value) else None
        raise _wrong(field, entry, f'the string "{value.text}"', bare or f"write {field.name}: {_example(field)}")
    if field.cpp_type == F.CPPTYPE_BOOL:
        if value.text not in _BOOLS:
            raise _wrong(field, entry, value.text, "write true or false")
        return _BOOLS[value.text]
    return _number(field, entry, value)


def _fits(field: Field, value: Scalar) -> bool:
    text = value.text
    if field.cpp_type == F.CPPTYPE_BOOL:
        return text in _BOOLS
    if field.cpp_type in _INTEGERS:
        return text.lstrip("-").isdecimal()
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(field: Field, entry: Entry, value: Scalar) -> int | float:
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        try:
            number = _integer(value.text)
        except ValueError:
            raise _wrong(field, entry, value.text, f"write {field.name}: {_example(field)}") from None
        if not low <= number <= high:
            raise _wrong(field, entry, value.text, f"give a number from {low} to {high}")
        return number
    try:
        if value.kind == "word" and value.text.lower() not in _INFINITE:
            raise ValueError(value.text)
        if value.text.lstrip("-")[:2].lower() == "0x":
            return float(int(value.text, 16))
        return float(value.text if value.kind == "word" else value.text.rstrip("fF"))
    except ValueError:
        raise _wrong(field, entry, value.text, f"write {field.name}: {_example(field)}") from None


def _integer(text: str) -> int:
    digits = text.lstrip("-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdecimal():
        return int(text, 8)  # 010 is octal in text format
    return int(text, 0)


def _enum(field: Field, entry: Entry, value: Scalar) -> int:
    values = field.enum_type.values_by_name
    if value.kind == "number" and value.text.lstrip("-").isdecimal():
        found = field.enum_type.values_by_number.get(int(value.text))
    elif value.kind == "word":
        found = values.get(value.text)
    else:
        hint = "without quotes" if value.text in values else f"one of {', '.join(values)}"
        raise _wrong(
            field,
            entry,
            f'the string "{value.text}"',
            f"write {field.name}: {value.text if value.text in values else '...'}, {hint}",
        )
    if found is None:
        near = nearest(value.text, values)
        raise ConfigError(
            f'"{field.name}" of {field.containing_type.name} has no value {value.text}',
            hint=f"did you mean {near}?" if near else f"one of {listed(values, most=40)}",
            where=str(value.loc),
        )
    remedy = unsupported_value(found)
    # The default of an optional field is what leaving it out gives, so writing it changes nothing.
    if remedy and (required(field) or found.number != field.default_value):
        raise ConfigError(f'{found.name} of "{field.name}" is not supported', hint=remedy, where=str(value.loc))
    return found.number


_TAKES = {
    F.CPPTYPE_STRING: "a string in quotes",
    F.CPPTYPE_BOOL: "true or false",
    F.CPPTYPE_ENUM: "a name",
    F.CPPTYPE_DOUBLE: "a number",
    F.CPPTYPE_FLOAT: "a number",
}


def _wrong(field: Field, entry: Entry, found: str, hint: str) -> ConfigError:
    takes = _TAKES.get(field.cpp_type)
    if takes is None:
        takes = "an integer" if _INTEGERS[field.cpp_type][0] < 0 else "an integer of at least 0"
    if field.cpp_type == F.CPPTYPE_ENUM:
        takes = f"a value of {field.enum_type.name}"
    return ConfigError(
        f'"{field.name}" of {field.containing_type.name} takes {takes}, not {found}',
        hint=hint,
        where=str(entry.value.loc),
    )


def _example(field: Field) -> str:
    if field.cpp_type == F.CPPTYPE_STRING:
        return f'"{field.default_value}"' if field.default_value else '"..."'
    if field.cpp_type == F.CPPTYPE_BOOL:
        return "true"
    if field.cpp_type == F.CPPTYPE_ENUM:
        return field.enum_type.values[0].name
    if field.cpp_type in _INTEGERS:
        return str(field.default_value or 1)
    return f"{field.default_value or 0.1:g}"
