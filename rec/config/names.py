"""Nearest known names, for messages that help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is close."""
    known = list(known)
    folded = {k.lower(): k for k in reversed(known)}
    hit = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return folded[hit[0]] if hit else None


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """`"a", "b", "c"`, shortened to `most` names with a count of the rest."""
    names = list(names)
    text = ", ".join(f'"{n}"' for n in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text


def suggest(name: str, known: Iterable[str], *, what: str = "known names") -> str:
    """`did you mean "x"?` or else the list of what is known.

    Args:
        name: what was written.
        known: what could have been.
        what: what the known ones are, in the plural.
    """
    known = list(known)
    hit = nearest(name, known)
    if hit is not None:
        return f'did you mean "{hit}"?'
    return f"{what}: {listed(known)}" if known else f"there are no {what}"
