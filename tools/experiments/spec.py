"""An experiment file -> its runs: which config, with which changes, with which seed, in which folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rec.config.build import Builder
from rec.config.errors import ConfigError
from rec.config.names import suggest
from rec.config.rules import check_options
from rec.config.textproto import Block, Entry, Loc, parse, render
from rec.config.tree import occurrences
from tools.experiments import experiment_pb2 as pb

SEEDS = (0, 1, 2, 3, 4)
METRICS = ("auc", "logloss")


@dataclass(frozen=True)
class Row:
    """A row of the table: a model under a variant.

    Attributes:
        model: name of the model.
        variant: name of the variant, "" where there are none.
        config: the .config file.
        overrides: texts for --set, in order.
        folder: of its runs, within the experiment's.
        references: metric -> value to hold the runs against.
        per_seed: texts for --set after the others, by seed in turn.
    """

    model: str
    variant: str
    config: Path
    overrides: tuple[str, ...]
    folder: str
    references: dict[str, float] = field(default_factory=dict, hash=False)
    per_seed: tuple[str, ...] = ()

    def overrides_of(self, seed: int) -> list[str]:
        """Texts for --set of a run."""
        own = self.per_seed[seed % len(self.per_seed)] if self.per_seed else ""
        return [*self.overrides, *([own] if own else [])]

    @property
    def title(self) -> str:
        """Its name in logs and plots."""
        return f"{self.model}, {self.variant}" if self.variant else self.model


@dataclass(frozen=True)
class Spec:
    """A checked experiment.

    Attributes:
        message: the file as written.
        path: the file.
        rows: of the table, in order: variants within models.
        seeds: of the runs of each row.
        metrics: of the table; the first is the one that is tested.
    """

    message: pb.Experiment
    path: Path
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the page and of the folder of runs."""
        return self.path.stem

    def baseline_of(self, row: Row) -> Row | None:
        """The row that it is tested against: the baseline under the same variant."""
        return self._find(self.message.baseline, row.variant) if self.message.baseline != row.model else None

    def baseline_variant_of(self, row: Row) -> Row | None:
        """The row that it is tested against: the same model under the baseline variant."""
        if not self.message.baseline_variant or self.message.baseline_variant == row.variant:
            return None
        return self._find(row.model, self.message.baseline_variant)

    def _find(self, model: str, variant: str) -> Row | None:
        return next((row for row in self.rows if (row.model, row.variant) == (model, variant)), None)


def load(path: str | Path, *, seeds: int | None = None) -> Spec:
    """Read and check an experiment file; the configs themselves are read when their runs are asked for.

    Args:
        path: the file.
        seeds: take this many: of the file's, or 0, 1, ... where it has fewer.

    Raises:
        ConfigError: with file, line and column.
    """
    path = Path(path)
    try:
        entries = parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    message, builder = pb.Experiment(), Builder()
    builder.fill(message, entries, Loc(str(path), 1, 1))
    try:
        # What is laid over a config is a piece of one: what a whole one requires may be missing in it.
        check_options(_without_pieces(message, builder))
        rows = _rows(message, entries, path.parent)
    except ConfigError as error:
        error.where = error.where or str(builder.sources.find(error.message, error.field, error.index) or path)
        raise
    given = tuple(message.seeds) or SEEDS
    if seeds is not None:
        given = given[:seeds] if seeds <= len(given) else tuple(range(seeds))
    return Spec(message, path, rows, given, tuple(message.metrics) or METRICS)


def slug(name: str) -> str:
    """A name as a folder's: "Full (Mamba)" is "full_mamba"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _without_pieces(message: pb.Experiment, builder: Builder) -> pb.Experiment:
    bare = pb.Experiment()
    bare.CopyFrom(message)
    bare.ClearField("set")
    for part in [*bare.models, *bare.variants, *bare.per_seed]:
        part.ClearField("set")
    for ours, theirs in [
        (message, bare),
        *zip(message.models, bare.models, strict=True),
        *zip(message.variants, bare.variants, strict=True),
        *zip(message.per_seed, bare.per_seed, strict=True),
    ]:
        builder.sources.copy(ours, theirs)
    return bare


def _rows(message: pb.Experiment, entries: Sequence[Entry], folder: Path) -> tuple[Row, ...]:
    if not message.models:
        raise ConfigError("the experiment has no models", message, hint='add models { name: "..." config: "x.config" }')
    _check_names(message)
    base = _piece(entries)
    models = [_piece(block.entries) for block in _blocks(entries, "models")]
    variants = [_piece(block.entries) for block in _blocks(entries, "variants")]
    per_seed = tuple(_piece(block.entries) for block in _blocks(entries, "per_seed"))
    rows = []
    for model, own in zip(message.models, models, strict=True):
        config = folder / model.config
        if not config.is_file():
            known = [os.path.relpath(file, folder) for file in sorted(config.parent.glob("*.config"))]
            raise ConfigError(
                f"there is no file {config}", model, "config", hint=suggest(model.config, known, what="there are")
            )
        home = model.folder or slug(model.name)
        for variant, change in zip(message.variants, variants, strict=True) if variants else [(None, None)]:
            references = [*message.references, *(variant.references if variant else ()), *model.references]
            rows.append(
                Row(
                    model.name,
                    variant.name if variant else "",
                    config,
                    tuple(text for text in (base, own, change) if text),
                    f"{home}/{slug(variant.name)}" if variant else home,
                    {each.metric: each.value for each in references},
                    per_seed,
                )
            )
    return tuple(rows)


def _check_names(message: pb.Experiment) -> None:
    models, variants = [m.name for m in message.models], [v.name for v in message.variants]
    for parts, what in ((message.models, "models"), (message.variants, "variants")):
        folders = Counter(getattr(part, "folder", "") or slug(part.name) for part in parts)
        for part in parts:
            if folders[getattr(part, "folder", "") or slug(part.name)] > 1:
                raise ConfigError(
                    f'two {what} would share the folder of "{part.name}"', part, "name", hint="name them apart"
                )
    for field_, known in (("baseline", models), ("baseline_variant", variants)):
        value = getattr(message, field_)
        if value and value not in known:
            raise ConfigError(f'{field_} is "{value}"', message, field_, hint=suggest(value, known, what="known are"))
    if len(set(message.seeds)) < len(message.seeds):
        raise ConfigError("a seed is there twice", message, "seeds", hint="give each once")


def _blocks(entries: Sequence[Entry], name: str) -> list[Block]:
    found = [each for entry in entries if entry.name == name for each in occurrences(entry)]
    return [entry.value for entry in found if isinstance(entry.value, Block)]


def _piece(entries: Sequence[Entry]) -> str:
    """The text of `set { ... }`."""
    return " ".join(render(block.entries) for block in _blocks(entries, "set"))


def overridden(spec: Spec, texts: Sequence[str]) -> Spec:
    """The experiment with pieces of config laid over every run, after all others."""
    rows = tuple(
        replace(
            row,
            overrides=(*row.overrides, *texts),
            per_seed=tuple(" ".join((own, *texts)) for own in row.per_seed),
        )
        for row in spec.rows
    )
    return replace(spec, rows=rows)
