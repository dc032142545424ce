"""Merging trees: an included file under the file that includes it, overrides over everything."""

from __future__ import annotations

from collections.abc import Sequence

from rec.config.proto import Field, MessageType
from rec.config.textproto import Block, Entry, ListValue


def merge(base: Sequence[Entry], over: Sequence[Entry], message: MessageType, *, replace: bool) -> tuple[Entry, ...]:
    """`over` laid on `base`: scalars replaced, messages merged, a oneof's other member removed.

    Args:
        base: entries below.
        over: entries that win.
        message: the type that both fill.
        replace: whether a repeated field of `over` replaces that of `base` (--set) or is appended
            to it (include). It is the outermost repeated field named that is replaced. An empty list takes
            away what is below in either case.
    """
    result = list(base)
    below = {e.name for e in base}
    seen: set[str] = set()
    for entry in over:
        field = message.fields_by_name.get(entry.name)
        if field is None:  # `build` reports it
            result.append(entry)
            continue
        first = field.name not in seen
        seen.add(field.name)
        if field.is_repeated:
            if (replace and first) or entry.value == ListValue((), entry.value.loc):
                result = [e for e in result if e.name != field.name]
            result.append(entry)
        elif field.message_type is not None and isinstance(entry.value, Block):
            result = _without(result, _rivals(field, over))
            if field.name in below:
                result = _merge_block(result, entry, entry.value, field.message_type, replace=replace)
            else:  # a second one in the same file stays: `build` merges it and warns
                result.append(entry)
        else:
            if first:
                result = _without(result, _rivals(field, over) | {field.name})
            result.append(entry)
    return tuple(result)


def _rivals(field: Field, over: Sequence[Entry]) -> set[str]:
    """Other members of the field's oneof, less those that `over` itself sets (a slip to report)."""
    if field.containing_oneof is None:
        return set()
    return {f.name for f in field.containing_oneof.fields} - {e.name for e in over}


def _without(entries: list[Entry], names: set[str]) -> list[Entry]:
    return [e for e in entries if e.name not in names] if names else entries


def _merge_block(base: list[Entry], entry: Entry, block: Block, message: MessageType, *, replace: bool) -> list[Entry]:
    same = [e for e in base if e.name == entry.name and isinstance(e.value, Block)]
    if not same:
        return [*base, entry]
    below = tuple(child for e in same for child in e.value.entries)  # type: ignore[union-attr]
    merged = Entry(
        entry.name, Block(merge(below, block.entries, message, replace=replace), same[0].value.loc), same[0].loc
    )
    return [merged if e is same[0] else e for e in base if e is same[0] or e not in same[1:]]


def occurrences(entry: Entry) -> list[Entry]:
    """An entry with a list as one entry per item."""
    if not isinstance(entry.value, ListValue):
        return [entry]
    return [Entry(entry.name, item, item.loc) for item in entry.value.items]
