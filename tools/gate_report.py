"""What the gate of an MDAF does: `python -m tools.gate_report MODEL_DIR --input "data/x/test/*.parquet"`.

Scores the rows with the trained model, the gate served beside the scores, and writes how the gate (the weight of the
static branch) depends on the length of the history and on the popularity of the target: gate.csv and gate.png.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rec.config.errors import ConfigError, DataError
from rec.config.features import Named, named_features
from rec.config.load import load_config
from rec.config.proto import Proto
from rec.data.files import find_files
from tools import plots, runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY, POPULARITY = "history_length", "item_popularity"
LABELS = {HISTORY: "steps of the history", POPULARITY: "training rows of the target (rows with history)"}


@dataclass(frozen=True)
class Columns:
    """Columns of the raw rows.

    Attributes:
        history: a sequence, list or delimited text.
        item: ids of the target.
        delimiter: between the steps of a text.
        longest: steps that the model reads at most.
    """

    history: str
    item: str
    delimiter: str
    longest: int


@dataclass(frozen=True)
class Bin:
    """The gates of the rows whose x lies in [first, last]."""

    x: str
    first: int
    last: int
    rows: int
    mean: float
    std: float
    p10: float
    median: float
    p90: float


def columns_of(config: Proto) -> Columns:
    """Where history and target of an mdaf lie, from its config: the first of each in its sequence group.

    Raises:
        ConfigError: no mdaf with a gate.
    """
    model = config.model_config
    if not (model.HasField("mdaf") and model.mdaf.HasField("static") and model.mdaf.HasField("sequence")):
        raise ConfigError("the model has no gate", model, hint="train an mdaf with both branches")
    named = {feature.name: feature for feature in named_features(config)}
    (group,) = (g for g in model.feature_groups if g.group_name == model.mdaf.sequence.input)
    members = [named[name] for name in group.feature_names]
    history = next(feature for feature in members if feature.is_sequence)
    target = next((feature for feature in members if not feature.is_sequence), None)
    if target is None:
        raise ConfigError("the sequence group has no target", group, hint="give its column by --item")
    settings = history.sequence or history.config
    return Columns(_column(history), target.columns[0], settings.sequence_delim or ";", settings.sequence_length)


def _column(history: Named) -> str:
    """Of a grouped sequence the column is called as its feature."""
    return history.name if history.sequence is not None else history.columns[0]


def lengths(column: pa.ChunkedArray, delimiter: str) -> np.ndarray:
    """Steps of each row, [rows]; nothing and an empty text are 0."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        found = pc.list_value_length(column)
    else:
        text = column.cast(pa.string())
        steps = pc.add(pc.count_substring(text, delimiter), 1)
        found = pc.if_else(pc.equal(pc.utf8_length(text), 0), 0, steps)
    return pc.fill_null(found, 0).to_numpy().astype(np.int64)


def popularity(items: pa.ChunkedArray, seen: pa.ChunkedArray) -> np.ndarray:
    """How often each item is among those seen, [rows]."""
    counts = pc.value_counts(seen.cast(items.type).combine_chunks())
    at = pc.index_in(items, counts.field("values"))
    found = pc.take(counts.field("counts"), at)
    return pc.fill_null(found, 0).to_numpy().astype(np.int64)


def binned(x: str, values: np.ndarray, gate: np.ndarray) -> list[Bin]:
    """Gates by doubling bins of a count: 0, 1, 2-3, 4-7, ...

    Args:
        x: what is counted.
        values: counts, [rows].
        gate: [rows].
    """
    bins = []
    # frexp is exact: 7 = 0.875 * 2^3 is of bin 3, 8 = 0.5 * 2^4 of bin 4.
    number = np.frexp(values.astype(np.float64))[1]
    for n in np.unique(number):
        own = gate[number == n]
        first, last = (0, 0) if n <= 0 else (2 ** (n - 1), 2**n - 1)
        low, median, high = np.quantile(own, (0.1, 0.5, 0.9))
        bins.append(
            Bin(x, int(first), int(min(last, values.max())), len(own), own.mean(), own.std(), low, median, high)
        )
    return bins


def write_csv(path: Path, bins: Sequence[Bin]) -> None:
    """One line a bin."""
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(("by", "from", "to", "rows", "gate_mean", "gate_std", "gate_p10", "gate_median", "gate_p90"))
        for b in bins:
            numbers = [f"{v:.6f}" for v in (b.mean, b.std, b.p10, b.median, b.p90)]
            writer.writerow((b.x, b.first, b.last, b.rows, *numbers))


def draw(bins: Sequence[Bin]) -> Figure:
    """Mean and the middle 80 % of the gate over either count; grey bars are shares of rows."""
    names = [x for x in (HISTORY, POPULARITY) if any(b.x == x for b in bins)]
    figure, panels = plots.new_figure(height=3.6, panels=len(names))
    for axes, x in zip(panels, names, strict=False):
        own = [b for b in bins if b.x == x]
        places = range(len(own))
        total = sum(b.rows for b in own)
        axes.bar(places, [b.rows / total for b in own], color="#dddddd", label="share of rows")
        axes.fill_between(places, [b.p10 for b in own], [b.p90 for b in own], alpha=0.25, linewidth=0, label="10-90 %")
        axes.plot(places, [b.mean for b in own], marker="o", markersize=4, label="mean")
        axes.set_xticks(
            list(places), [str(b.first) if b.first == b.last else f"{b.first}-{b.last}" for b in own], rotation=45
        )
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(LABELS[x])
        axes.set_ylabel("gate (1: static branch alone)")
        axes.legend(fontsize="x-small")
    return figure


def report(predictions: pa.Table, columns: Columns, seen: pa.ChunkedArray | None) -> list[Bin]:
    """The bins of scored rows.

    Args:
        predictions: raw columns and "gate"; of a vector gate the mean of a row's.
        columns: which ones.
        seen: target ids of the training rows; without them popularity is left out.
    """
    gate = predictions["gate"]
    if pa.types.is_fixed_size_list(gate.type):
        width = gate.type.list_size
        gates = gate.combine_chunks().flatten().to_numpy().reshape(-1, width).astype(np.float64).mean(axis=1)
    else:
        gates = gate.to_numpy().astype(np.float64)
    steps = np.minimum(lengths(predictions[columns.history], columns.delimiter), columns.longest)
    bins = binned(HISTORY, steps, gates)
    if seen is not None:
        # Without a history the gate is 1 by rule, whatever the target is.
        told = steps > 0
        bins += binned(POPULARITY, popularity(predictions[columns.item], seen)[told], gates[told])
    return bins


def read(pattern: str, names: Sequence[str]) -> pa.Table:
    """Some columns of all files of a pattern."""
    files = find_files(pattern, (".parquet",))
    table = ds.dataset(files, format="parquet")
    missing = [name for name in names if name not in table.schema.names]
    if missing:
        raise DataError(f"has no column {', '.join(missing)}", file=files[0])
    return table.to_table(columns=list(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and report from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.gate_report", description=__doc__.split("\n\n")[0])
    parser.add_argument("model_dir", help="folder of a trained mdaf")
    parser.add_argument("--input", help="rows to score (parquet); default test_input_path, else eval_input_path")
    parser.add_argument("--train", help="rows that popularity is counted in; default train_input_path")
    parser.add_argument("--output", help="default <model_dir>/gate")
    parser.add_argument("--no-plots", action="store_true", help="write gate.csv only")
    given = parser.parse_args(arguments)
    path = str(Path(given.model_dir) / "pipeline.config")
    folder = Path(given.output or Path(given.model_dir) / "gate")
    try:
        if not given.no_plots:
            plots.require()
        config = load_config(path).config
        columns = columns_of(config)
        rows = given.input or config.test_input_path or config.eval_input_path
        folder.mkdir(parents=True, exist_ok=True)
        scored = folder / "predictions"
        runs.call(
            "--pipeline_config", path, "--mode", "predict", "--input", rows, "--output", str(scored),
            "--set", f'model_dir: "{given.model_dir}" model_config {{ served_predictions: "gate" }}',
        )  # fmt: skip
        predictions = read(f"{scored}/*.parquet", [columns.history, columns.item, "gate"])
        seen = read(given.train or config.train_input_path, [columns.item])[columns.item]
        bins = report(predictions, columns, seen)
        write_csv(folder / "gate.csv", bins)
        if not given.no_plots:
            draw(bins).savefig(folder / "gate.png", dpi=110, metadata={"Software": None})
    except (ConfigError, DataError, runs.RunFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 3
    print("\n".join(str(p) for p in sorted(folder.glob("gate.*"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
