"""Ranges in names: `feature_name: "cat_[0-25]"` stands for 26 feature configs.

The numbers count from the first to the last, both included; a first number with leading zeros
("[00-25]") gives all of them that width. Every other string of the feature's block that holds a
range of the same length counts along, so `expression: "item:C[1-26]"` gives C1 to C26.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rec.config.errors import ConfigError
from rec.config.textproto import Block, Entry, ListValue, Scalar

_RANGE = re.compile(r"\[(\d+)-(\d+)\]")
# Vocabularies and default values are data: a "[0-9]" in them is meant literally.
_COUNTS_ALONG = {"expression", "embedding_name", "vocab_file", "sequence_fields", "sequence_name"}
_MOST = 100_000


def expand_range(text: str) -> list[str] | None:
    """The strings that a text with one range stands for, or None when it has no range.

    Raises:
        ValueError: two ranges, or a range that counts down or is absurdly long.
    """
    found = list(_RANGE.finditer(text))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f'"{text}" has {len(found)} ranges; one is allowed')
    first, last = found[0].group(1), found[0].group(2)
    if int(last) < int(first) or int(last) - int(first) >= _MOST:
        raise ValueError(f'the range of "{text}" counts from {first} to {last}')
    width = len(first) if first.startswith("0") else 0
    return [
        f"{text[: found[0].start()]}{i:0{width}d}{text[found[0].end() :]}" for i in range(int(first), int(last) + 1)
    ]


def expand_feature_ranges(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Copies every `feature_configs` whose feature name has a range, once per number."""
    return tuple(copy for entry in entries for copy in _expand(entry, "feature_configs"))


def _expand(entry: Entry, container: str) -> Iterator[Entry]:
    if entry.name != container:
        yield entry
        return
    if isinstance(entry.value, ListValue):
        if not entry.value.items:  # takes away what is below (see `merge`)
            yield entry
        for item in entry.value.items:
            yield from _expand(Entry(entry.name, item, item.loc), container)
        return
    if not isinstance(entry.value, Block):
        yield entry
        return
    entry = _expand_inner(entry, entry.value)
    assert isinstance(entry.value, Block)
    name = _name_of(entry.value)
    texts = _ranged(name) if name is not None else None
    if texts is None:
        yield entry
        return
    for i in range(len(texts)):
        yield _substitute(entry, i, len(texts))


def _expand_inner(entry: Entry, block: Block) -> Entry:
    """`features` with ranges inside a `sequence_feature`."""
    children = []
    for child in block.entries:
        if child.name == "sequence_feature" and isinstance(child.value, Block):
            inner = tuple(copy for e in child.value.entries for copy in _expand(e, "features"))
            child = Entry(child.name, Block(inner, child.value.loc), child.loc, child.colon)
        children.append(child)
    return Entry(entry.name, Block(tuple(children), block.loc), entry.loc, entry.colon)


def _name_of(block: Block) -> Scalar | None:
    for feature in block.entries:
        if isinstance(feature.value, Block):
            for name in ("feature_name", "sequence_name"):
                for entry in feature.value.entries:
                    if entry.name == name and isinstance(entry.value, Scalar):
                        return entry.value
    return None


def _ranged(value: Scalar) -> list[str] | None:
    try:
        return expand_range(value.text)
    except ValueError as e:
        raise ConfigError(
            str(e), hint='write a range as "name_[0-25]", the smaller number first', where=str(value.loc)
        ) from None


def _substitute(entry: Entry, i: int, count: int) -> Entry:
    value = entry.value
    if isinstance(value, Block):
        new: Scalar | Block | ListValue = Block(tuple(_substitute(e, i, count) for e in value.entries), value.loc)
    elif isinstance(value, ListValue):
        items = tuple(_substitute_scalar(entry.name, item, i, count) for item in value.items)
        new = ListValue(items, value.loc)
    else:
        new = _substitute_scalar(entry.name, value, i, count)
    return Entry(entry.name, new, entry.loc, entry.colon)


def _substitute_scalar(name: str, value: Scalar | Block, i: int, count: int) -> Scalar | Block:
    if not isinstance(value, Scalar) or value.kind != "string" or name not in _COUNTS_ALONG | {"feature_name"}:
        return value
    texts = _ranged(value)
    if texts is None:
        return value
    if len(texts) != count:
        raise ConfigError(
            f'the range of "{value.text}" has {len(texts)} numbers, that of the feature name {count}',
            hint="give both the same length",
            where=str(value.loc),
        )
    return Scalar("string", texts[i], value.loc)
