"""Text-format protobuf -> a tree of entries that know their file, line and column.

`google.protobuf.text_format` forgets places once it has parsed, and merges before anything can be
expanded or overridden. So the text is read into a small tree here; `tree` merges trees, `expand`
copies them, and `build` turns the last one into a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf import text_encoding

from rec.config.errors import ConfigError


class Loc(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value as written. `kind` is "string" (decoded), "number" or "word" (true, DEEP, inf)."""

    kind: str
    text: str
    loc: Loc


@dataclass(frozen=True, slots=True)
class Block:
    """`{ ... }`."""

    entries: tuple[Entry, ...]
    loc: Loc


@dataclass(frozen=True, slots=True)
class ListValue:
    """`[a, b]`: as many occurrences of a repeated field, or none."""

    items: tuple[Scalar | Block, ...]
    loc: Loc


@dataclass(frozen=True, slots=True)
class Entry:
    """`name: value`; `colon` tells whether the colon was written (a scalar needs it)."""

    name: str
    value: Scalar | Block | ListValue
    loc: Loc
    colon: bool = True


class _Token(NamedTuple):
    kind: str
    text: str
    loc: Loc


_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\f\v]+|\#[^\n]*)+)
      | (?P<newline>\n)
      | (?P<number>-?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)(?![\w.]))
      | (?P<word>-?[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<mark>[{}<>\[\]:;,])
    """,
    re.VERBOSE,
)


def _tokens(text: str, file: str) -> Iterator[_Token]:
    line, start, at = 1, 0, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        loc = Loc(file, line, at - start + 1)
        if match is None:
            raise _bad_character(text, at, loc)
        kind = match.lastgroup or ""
        at = match.end()
        if kind == "newline":
            line, start = line + 1, at
        elif kind != "space":
            yield _Token(kind, match.group(), loc)
    yield _Token("end", "", Loc(file, line, at - start + 1))


def _bad_character(text: str, at: int, loc: Loc) -> ConfigError:
    if text[at] in "\"'":
        return ConfigError("this string has no closing quote on its line", hint=f"add {text[at]}", where=str(loc))
    rest = re.match(r"[^\s{}\[\]<>:;,]+", text[at:])
    found = rest.group() if rest else text[at]
    return ConfigError(
        f"cannot read {found!r} as a number, a word or a string", hint="remove or quote it", where=str(loc)
    )


_CLOSING = {"{": "}", "<": ">"}


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.tokens = _tokens(text, file)
        self.token = next(self.tokens)

    def advance(self) -> _Token:
        token = self.token
        self.token = next(self.tokens, token)
        return token

    def accept(self, marks: str) -> _Token | None:
        if self.token.kind == "mark" and self.token.text in marks:
            return self.advance()
        return None

    def entries(self, closing: str, opened: Loc | None, name: str) -> tuple[Entry, ...]:
        found: list[Entry] = []
        while not (self.token.kind == "mark" and self.token.text == closing):
            if self.token.kind == "end":
                if opened is None:
                    break
                raise ConfigError(
                    f'the file ends inside "{name}"', hint=f'add the "{closing}" that is missing', where=str(opened)
                )
            found.append(self.entry())
            self.accept(";,")
        if opened is not None:
            self.advance()
        return tuple(found)

    def entry(self) -> Entry:
        token = self.advance()
        if token.kind == "mark" and token.text in "}>":
            raise ConfigError(
                f'"{token.text}" closes nothing',
                hint="remove it, or look for one too many before it",
                where=str(token.loc),
            )
        if token.kind != "word" or token.text.startswith("-"):
            raise ConfigError(f"expected the name of a field, found {token.text}", where=str(token.loc))
        colon = self.accept(":") is not None
        return Entry(token.text, self.value(token.text, colon), token.loc, colon)

    def value(self, name: str, colon: bool) -> Scalar | Block | ListValue:
        token = self.token
        if opening := self.accept("{<"):
            return Block(self.entries(_CLOSING[opening.text], opening.loc, name), opening.loc)
        if not colon and self.token.text != "[":
            raise ConfigError(
                f'expected ":" or "{{" after "{name}", found {token.text or "the end of the file"}',
                where=str(token.loc),
            )
        if opening := self.accept("["):
            items = self.items(name, opening.loc)
            if not colon and any(isinstance(item, Scalar) for item in items):
                raise ConfigError(f'expected ":" after "{name}"', where=str(token.loc))
            return ListValue(items, opening.loc)
        return self.scalar(name)

    def items(self, name: str, opened: Loc) -> tuple[Scalar | Block, ...]:
        found: list[Scalar | Block] = []
        while not self.accept("]"):
            if self.token.kind == "end":
                raise ConfigError(f'the list of "{name}" is not closed', hint='add "]"', where=str(opened))
            value = self.value(name, True)
            if isinstance(value, ListValue):
                raise ConfigError(f'"{name}" has a list inside a list', where=str(value.loc))
            found.append(value)
            if not self.accept(",") and self.token.text != "]":
                raise ConfigError(
                    f'expected "," or "]" in the list of "{name}", found {self.token.text or "the end of the file"}',
                    where=str(self.token.loc),
                )
        return tuple(found)

    def scalar(self, name: str) -> Scalar:
        token = self.advance()
        if token.kind == "string":
            parts = [token]
            while self.token.kind == "string":  # "a" "b" is "ab"
                parts.append(self.advance())
            return Scalar("string", "".join(_decoded(p) for p in parts), token.loc)
        if token.kind in ("number", "word"):
            return Scalar(token.kind, token.text, token.loc)
        raise ConfigError(f'"{name}" has no value, found {token.text or "the end of the file"}', where=str(token.loc))


_ESCAPE = re.compile(r"""\\(?:[abfnrtv\\'"?]|[0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})""")


def _decoded(token: _Token) -> str:
    try:
        if "\\" in _ESCAPE.sub("", token.text):
            raise ValueError("a backslash begins no escape that is known")
        return text_encoding.CUnescape(token.text[1:-1]).decode("utf-8")
    except (ValueError, UnicodeDecodeError) as e:
        raise ConfigError(
            f"this string cannot be decoded: {e}", hint=r'write a backslash as "\\"', where=str(token.loc)
        ) from e


def parse(text: str, file: str) -> tuple[Entry, ...]:
    """The entries of a text-format file.

    Raises:
        ConfigError: with the place, when the text is not text format.
    """
    return _Parser(text, file).entries("", None, "")


def render(entries: Sequence[Entry]) -> str:
    """Entries as text on one line: `parse` gives them back, but for their places."""
    return " ".join(f"{e.name}{'' if isinstance(e.value, Block) else ':'} {_rendered(e.value)}" for e in entries)


def _rendered(value: Scalar | Block | ListValue) -> str:
    if isinstance(value, Block):
        return f"{{ {render(value.entries)} }}"
    if isinstance(value, ListValue):
        return f"[{', '.join(map(_rendered, value.items))}]"
    if value.kind == "string":
        return f'"{text_encoding.CEscape(value.text.encode(), as_utf8=True)}"'
    return value.text
