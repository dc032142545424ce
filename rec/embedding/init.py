"""Initial values of tables: parsed from the config without eval, the same on any placement.

The rows are drawn in chunks, each from a generator seeded by (seed, table name, chunk number). So a
value depends on nothing but the seed, the table's name and its row: not on other tables, their order,
the number of processes, sharding or device.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Independent of the number of rows, unlike TorchRec's U(+-sqrt(1/rows)), which starts a table of ten
# rows at +-0.32 and one of ten million at +-0.0003. See docs/decisions/0003-embedding-tables.md.
DEFAULT_INIT = "nn.init.normal_,std=0.01"

CHUNK_ROWS = 65536

_NAME = re.compile(r"(?:(?:torch\.)?nn\.)?(?:init\.)?(?P<name>\w+)")

# Fills a chunk: (chunk, rows and dim of the whole table, generator).
Fill = Callable[[Tensor, int, int, torch.Generator], None]


@dataclass(frozen=True)
class Init:
    """A parsed initialiser: `fill(chunk, rows, dim, generator)`, and the text it came from."""

    text: str
    fill: Fill


def _uniform(a: float = 0.0, b: float = 1.0) -> Fill:
    return lambda x, rows, dim, g: _do(x.uniform_(a, b, generator=g))


def _normal(mean: float = 0.0, std: float = 1.0) -> Fill:
    return lambda x, rows, dim, g: _do(x.normal_(mean, std, generator=g))


def _trunc_normal(mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Fill:
    return lambda x, rows, dim, g: _do(torch.nn.init.trunc_normal_(x, mean, std, a, b, generator=g))


def _constant(val: float) -> Fill:
    return lambda x, rows, dim, g: _do(x.fill_(val))


def _xavier_uniform(gain: float = 1.0) -> Fill:
    def fill(x: Tensor, rows: int, dim: int, g: torch.Generator) -> None:
        bound = gain * math.sqrt(6.0 / (rows + dim))
        x.uniform_(-bound, bound, generator=g)

    return fill


def _xavier_normal(gain: float = 1.0) -> Fill:
    return lambda x, rows, dim, g: _do(x.normal_(0.0, gain * math.sqrt(2.0 / (rows + dim)), generator=g))


def _kaiming_std(a: float, mode: str, nonlinearity: Any, rows: int, dim: int) -> float:
    fan = dim if mode == "fan_in" else rows
    return torch.nn.init.calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _kaiming_uniform(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Fill:
    def fill(x: Tensor, rows: int, dim: int, g: torch.Generator) -> None:
        bound = math.sqrt(3.0) * _kaiming_std(a, mode, nonlinearity, rows, dim)
        x.uniform_(-bound, bound, generator=g)

    return fill


def _kaiming_normal(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Fill:
    return lambda x, rows, dim, g: _do(x.normal_(0.0, _kaiming_std(a, mode, nonlinearity, rows, dim), generator=g))


def _do(_: Tensor) -> None:
    return None


_INITS: dict[str, Callable[..., Fill]] = {
    "uniform_": _uniform,
    "normal_": _normal,
    "trunc_normal_": _trunc_normal,
    "constant_": _constant,
    "zeros_": lambda: _constant(0.0),
    "ones_": lambda: _constant(1.0),
    "xavier_uniform_": _xavier_uniform,
    "xavier_normal_": _xavier_normal,
    "kaiming_uniform_": _kaiming_uniform,
    "kaiming_normal_": _kaiming_normal,
}


def parse_init(text: str) -> Init:
    """The initialiser that a config's `init_fn` names.

    Args:
        text: function of torch.nn.init and its keyword arguments, "nn.init.uniform_,a=-0.01,b=0.01";
            "" is `DEFAULT_INIT`.

    Raises:
        ValueError: what is not understood, and what would be.
    """
    text = text.strip() or DEFAULT_INIT
    name, *arguments = (part.strip() for part in text.split(","))
    match = _NAME.fullmatch(name)
    if match is None or match["name"] not in _INITS:
        raise ValueError(f'init_fn "{text}" is unknown; known are {", ".join(f"nn.init.{n}" for n in _INITS)}')
    make = _INITS[match["name"]]
    takes = inspect.signature(make).parameters
    kwargs: dict[str, float | str] = {}
    for argument in filter(None, arguments):
        key, equals, value = (s.strip() for s in argument.partition("="))
        if not equals or key not in takes:
            known = ", ".join(f"{p}=..." for p in takes) or "no arguments"
            raise ValueError(f'init_fn "{text}": "{argument}" is not understood; it takes {known}')
        if key in kwargs:
            raise ValueError(f'init_fn "{text}" sets {key} twice')
        kwargs[key] = _literal(text, key, value, is_text=isinstance(takes[key].default, str))
    missing = [p for p, v in takes.items() if v.default is inspect.Parameter.empty and p not in kwargs]
    if missing:
        raise ValueError(f'init_fn "{text}" needs {missing[0]}=...')
    if kwargs.get("mode", "fan_in") not in ("fan_in", "fan_out"):
        raise ValueError(f'init_fn "{text}": mode is "fan_in" or "fan_out"')
    return Init(text, make(**kwargs))


def _literal(text: str, key: str, value: str, *, is_text: bool) -> float | str:
    if is_text:
        return value.strip("\"'")
    try:
        number = ast.literal_eval(value)
        return float(number)
    except (ValueError, SyntaxError, TypeError):
        raise ValueError(f'init_fn "{text}": {key}="{value}" is not a number') from None


def init_rows_(out: Tensor, *, name: str, rows: int, init: Init, seed: int, first_row: int = 0) -> None:
    """Fill the rows of a table, or of a shard of it, in place.

    Args:
        out: rows `first_row`, `first_row` + 1, ... of the table, [n, dim]; any device and dtype.
        name: the table's name.
        rows: rows of the whole table.
        init: what to draw.
        seed: the job's seed.
        first_row: number of the first row of `out` in the table.
    """
    n, dim = out.shape
    last = min(first_row + n, rows)
    for chunk in range(first_row // CHUNK_ROWS, -(-last // CHUNK_ROWS) if last > first_row else 0):
        start, stop = chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, rows)
        values = torch.empty(stop - start, dim)
        init.fill(values, rows, dim, _generator(seed, name, chunk))
        begin, end = max(start, first_row), min(stop, last)
        with torch.no_grad():
            out[begin - first_row : end - first_row].copy_(values[begin - start : end - start])


def _generator(seed: int, name: str, chunk: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}/{chunk}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
