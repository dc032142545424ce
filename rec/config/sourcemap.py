"""Where in which file each message and field was written."""

from __future__ import annotations

from rec.config.proto import Proto
from rec.config.textproto import Loc


class SourceMap:
    """Places by message identity.

    upb gives the same Python wrapper for a sub-message as long as one is referenced, so the map
    holds on to every message it knows: `id(msg)` stays its key for as long as the map lives.
    """

    def __init__(self) -> None:
        self._messages: dict[int, tuple[Proto, Loc]] = {}
        self._fields: dict[tuple[int, str], list[Loc]] = {}

    def add_message(self, msg: Proto, loc: Loc) -> None:
        """The message's block begins here."""
        self._messages.setdefault(id(msg), (msg, loc))

    def add_field(self, msg: Proto, field: str, loc: Loc, *, single: bool = False) -> None:
        """One more occurrence of a field (`single`: the one that counts)."""
        places = self._fields.setdefault((id(msg), field), [])
        if single:
            places.clear()
        places.append(loc)

    def fields(self, msg: Proto, field: str) -> list[Loc]:
        """Every occurrence of a field, in order."""
        return list(self._fields.get((id(msg), field), ()))

    def set_fields(self, msg: Proto, field: str, places: list[Loc]) -> None:
        """New places of a repeated field whose elements were rewritten."""
        self._fields[(id(msg), field)] = places

    def copy(self, source: Proto, target: Proto) -> None:
        """`target` was made from `source`: both lie at the same place."""
        if id(source) in self._messages:
            self._messages.setdefault(id(target), (target, self._messages[id(source)][1]))
        for field in source.DESCRIPTOR.fields_by_name:
            if (id(source), field) in self._fields:
                self._fields[(id(target), field)] = self.fields(source, field)

    def find(self, msg: Proto | None, field: str | None = None, index: int | None = None) -> Loc | None:
        """The place of a field's occurrence, of the message when the field is not set, or None."""
        if msg is None:
            return None
        places = self._fields.get((id(msg), field)) if field else None
        if places:
            return places[index] if index is not None and index < len(places) else places[0]
        known = self._messages.get(id(msg))
        return known[1] if known else None
