"""Loading a .config: includes, overrides and shorthands resolved, everything checked and located."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from rec.config.build import Builder
from rec.config.check import check
from rec.config.errors import ConfigError
from rec.config.expand import apply_feature_defaults, apply_global_constraints, expand_group_names
from rec.config.names import suggest
from rec.config.proto import Proto
from rec.config.ranges import expand_feature_ranges
from rec.config.rules import check_options
from rec.config.sourcemap import SourceMap
from rec.config.textproto import Entry, Loc, Scalar, parse
from rec.config.tree import merge, occurrences
from rec.protos import pipeline_pb2


class Loaded:
    """A config with everything written out, and the way back to its text.

    Attributes:
        config: includes merged, overrides applied, ranges, patterns and defaults expanded.
        warnings: what looks like a slip, each with its place.
        path: the file it was loaded from.
    """

    def __init__(self, config: pipeline_pb2.EasyRecConfig, warnings: list[str], path: str, sources: SourceMap) -> None:
        self.config = config
        self.warnings = warnings
        self.path = path
        self._sources = sources

    def where(self, msg: Proto | None, field: str | None = None, index: int | None = None) -> str:
        """The place "file:line:col" of a field, of its message when it is not set, or the file alone."""
        return str(self._sources.find(msg, field, index) or self.path)

    def describe(self, err: ConfigError) -> str:
        """The error as "file:line:col: what is there; what would do", ready to be shown."""
        if err.where is None:
            err.where = self.where(err.message, err.field, err.index)
        return str(err)

    def text(self) -> str:
        """The resolved config: loading it again gives the same message."""
        return resolved_text(self.config)


def resolved_text(config: Proto) -> str:
    """A config as stable text, fields in the order of the schema."""
    return text_format.MessageToString(config, as_utf8=True)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Loaded:
    """Loads, resolves and checks a config.

    Args:
        path: a text-format file.
        overrides: texts of --set, applied in order; a repeated field replaces the file's.

    Raises:
        ConfigError: with `where` set.
    """
    root = pipeline_pb2.EasyRecConfig.DESCRIPTOR
    entries = _read(Path(path), [], set(), None)
    for i, text in enumerate(overrides):
        name = "--set" if len(overrides) == 1 else f"--set#{i + 1}"
        over = parse(text, name)
        _refuse_include(over)
        entries = merge(entries, expand_feature_ranges(over), root, replace=True)
    return _resolve(entries, str(path))


def load_text(text: str, name: str = "<text>") -> Loaded:
    """Like `load_config`, from a string (an exported config, a test); no includes."""
    entries = parse(text, name)
    _refuse_include(entries)
    return _resolve(expand_feature_ranges(entries), name)


def _refuse_include(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.name == "include":
            raise ConfigError("include works in files only", hint="put it into the config", where=str(entry.loc))


def _resolve(entries: Sequence[Entry], path: str) -> Loaded:
    config = pipeline_pb2.EasyRecConfig()
    builder = Builder()
    loaded = Loaded(config, builder.warnings, path, builder.sources)
    try:
        builder.fill(config, entries, Loc(path, 1, 1))
        apply_feature_defaults(config)  # first: patterns ask which features have a table
        apply_global_constraints(config, builder.sources)
        expand_group_names(config, builder.sources)
        found = check_options(config) + check(config)
        loaded.warnings += [loaded.describe(w) for w in found]
    except ConfigError as e:
        loaded.describe(e)
        raise
    return loaded


def _read(path: Path, stack: list[Path], done: set[Path], named_at: Loc | None) -> tuple[Entry, ...]:
    """The entries of a file over those of the files it includes."""
    real = path.resolve()
    where = str(named_at) if named_at else None
    if real in stack:
        chain = " -> ".join(p.name for p in [*stack[stack.index(real) :], real])
        raise ConfigError(f"files include each other: {chain}", hint="remove one include", where=where)
    if real in done:  # included twice on different ways: read once
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        siblings = sorted(str(p) for p in path.parent.glob("*.config")) if path.parent.is_dir() else []
        hint = suggest(str(path), siblings, what=f"configs in {path.parent}")
        if not path.parent.is_dir():
            hint = f"there is no folder {path.parent}"
        raise ConfigError(f"cannot read config {path}: {e.strerror}", hint=hint, where=where) from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path} is not UTF-8 text (byte {e.start})", where=where) from None
    entries = expand_feature_ranges(parse(text, str(path)))
    below: tuple[Entry, ...] = ()
    own: list[Entry] = []
    root = pipeline_pb2.EasyRecConfig.DESCRIPTOR
    for entry in entries:
        if entry.name != "include":
            own.append(entry)
            continue
        for one in occurrences(entry):
            included = _read(_included(path, one), [*stack, real], done, one.loc)
            below = merge(below, included, root, replace=False)
    done.add(real)
    return merge(below, own, root, replace=False)


def _included(path: Path, entry: Entry) -> Path:
    if not isinstance(entry.value, Scalar) or entry.value.kind != "string":
        raise ConfigError("include takes the path of a file in quotes", where=str(entry.loc))
    return path.parent / entry.value.text
