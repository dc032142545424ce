"""Names of tables and features as names of module attributes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from torch import nn

from rec.config.errors import ConfigError

_TAKEN = frozenset(dir(nn.Module())) | frozenset(dir(nn.ModuleDict()))


def attribute_names(names: Iterable[str]) -> dict[str, str]:
    """An attribute name for each name: itself where Python and torch.nn.Module allow it.

    Attributes may not hold dots or be called as a method of nn.Module ("type") or a keyword ("class").

    Raises:
        ConfigError: when two names become the same.
    """
    given: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        safe = re.sub(r"\W", "_", name, flags=re.ASCII)
        if safe in _TAKEN or keyword.iskeyword(safe) or safe[:1].isdigit():
            safe = f"{safe}_" if not safe[:1].isdigit() else f"_{safe}"
        if safe in taken:
            raise ConfigError(f'"{name}" and "{taken[safe]}" both become "{safe}" in a checkpoint', hint="rename one")
        taken[safe] = name
        given[name] = safe
    return given
