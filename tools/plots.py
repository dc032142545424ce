"""Plots of runs, from their metrics.jsonl: `python -m tools.plots MODEL_DIR... --output FOLDER`.

Training curves, the gap between training and validation rows, histograms of gates, and bars with error bars. Needs
matplotlib (`pip install ".[plots]"`), which is imported when something is drawn.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rec.config.errors import ConfigError
from tools import runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tools.experiments.runner import Cell
    from tools.experiments.spec import Spec

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Series:
    """The runs of one row.

    Attributes:
        name: in the legend.
        runs: for each seed, the lines of metrics.jsonl.
        results: the final metric of each seed, for bars.
        reference: a value to draw beside them.
    """

    name: str
    runs: list[Records]
    results: list[float]
    reference: float | None = None


def require() -> None:
    """Refuses to go on without matplotlib: better now than after hours of training.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(
            "plots need matplotlib, which is not installed", hint='pip install ".[plots]", or give --no-plots'
        ) from None


def of_experiment(spec: Spec, cells: Sequence[Cell], folder: Path) -> tuple[str, ...]:
    """Draw what the finished runs of an experiment have to show; the names of the files."""
    series = []
    for row in spec.rows:
        done = [cell for cell in cells if cell.row == row and cell.run is not None]
        metric = spec.metrics[0]
        results = [
            value for cell in done if cell.run is not None and (value := cell.run.metrics.get(metric)) is not None
        ]
        if done:
            histories = [runs.records(cell.folder) for cell in done]
            series.append(Series(row.title, histories, results, row.references.get(metric)))
    return draw(series, metric=spec.metrics[0], folder=folder)


def draw(series: Sequence[Series], *, metric: str, folder: Path) -> tuple[str, ...]:
    """Every plot that has something to show, as PNG.

    Args:
        series: rows of the experiment.
        metric: that curves, gaps and bars are of.
        folder: made where it is not there.

    Returns:
        Names of the files.
    """
    figures = {
        "bars.png": bars(series, metric),
        "curves.png": curves(series, metric),
        "gap.png": gaps(series, metric),
        "gate.png": histograms(series),
    }
    drawn = {name: figure for name, figure in figures.items() if figure is not None}
    if drawn:
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        # No date in the file: the same runs give the same bytes.
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
    return tuple(drawn)


def bars(series: Sequence[Series], metric: str) -> Figure | None:
    """Mean of each row with its standard deviation, a dot for each seed; the axis does not begin at 0."""
    shown = [each for each in series if each.results]
    if not shown:
        return None
    figure, (axes,) = new_figure(height=1.2 + 0.36 * len(shown))
    places = list(range(len(shown)))[::-1]
    means = [statistics.fmean(each.results) for each in shown]
    spreads = [statistics.stdev(each.results) if len(each.results) > 1 else 0.0 for each in shown]
    every = [value for each in shown for value in each.results]
    every += [each.reference for each in shown if each.reference is not None]
    room = max(max(every) - min(every), 1e-4)
    axes.barh(places, means, xerr=spreads, capsize=3, color="#9ecae1", ecolor="#08519c")
    for place, each in zip(places, shown, strict=True):
        axes.plot(each.results, [place] * len(each.results), ".", color="#08306b", markersize=5)
        if each.reference is not None:
            axes.plot([each.reference] * 2, [place - 0.4, place + 0.4], color="#cb181d", linewidth=1.5)
    axes.set_yticks(places, [each.name for each in shown])
    axes.set_xlim(min(every) - 0.25 * room, max(every) + 0.1 * room)
    axes.set_xlabel(f"test {metric}: mean, standard deviation, seeds (the axis does not begin at 0)")
    return figure


def curves(series: Sequence[Series], metric: str) -> Figure | None:
    """The metric on validation rows over the epochs: mean of the seeds, and their range."""
    return _over_epochs(series, f"validation {metric}", lambda r: r["metrics"].get(metric))


def gaps(series: Sequence[Series], metric: str) -> Figure | None:
    """The metric of training rows minus that of validation rows over the epochs."""
    figure = _over_epochs(series, f"{metric}: training minus validation rows", lambda r: r.get("gap", {}).get(metric))
    if figure is not None:
        figure.axes[0].axhline(0, color="grey", linewidth=0.8)
    return figure


def _over_epochs(series: Sequence[Series], label: str, value: Any) -> Figure | None:
    lines = {each.name: by_epoch(each.runs, value) for each in series}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    figure, (axes,) = new_figure(height=4.2)
    for place, (name, points) in enumerate(lines.items()):
        epochs = sorted(points)
        style = ("-", "--", ":")[place // 10 % 3]
        (line,) = axes.plot(epochs, [statistics.fmean(points[e]) for e in epochs], style, marker=".", label=name)
        low, high = [min(points[e]) for e in epochs], [max(points[e]) for e in epochs]
        axes.fill_between(epochs, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def by_epoch(histories: Sequence[Records], value: Any) -> dict[int, list[float]]:
    """Epoch -> the value of each run that has one there."""
    points: dict[int, list[float]] = defaultdict(list)
    for records in histories:
        for record in records:
            if record["split"] == "eval" and (found := value(record)) is not None:
                points[record["epoch"]].append(found)
    return dict(points)


def histograms(series: Sequence[Series]) -> Figure | None:
    """The histograms of the last evaluation, e.g. of a gate: shares of rows, mean of the seeds."""
    found = {f"{each.name}: {name}": shares for each in series for name, shares in last_histograms(each.runs).items()}
    if not found:
        return None
    figure, panels = new_figure(height=2.4 * math.ceil(len(found) / 2), panels=len(found))
    for axes, (name, (edges, shares)) in zip(panels, found.items(), strict=False):
        widths = [b - a for a, b in itertools.pairwise(edges)]
        axes.bar(edges[:-1], shares, width=widths, align="edge", color="#9ecae1", edgecolor="white", linewidth=0.4)
        axes.set_title(name, fontsize="small")
        axes.set_ylabel("share of rows")
    return figure


def last_histograms(histories: Sequence[Records]) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> (edges, shares): of each run's last evaluation that has one, mean over the runs."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for records in histories:
        last: dict[str, Mapping[str, Any]] = {}
        for record in records:
            last |= record.get("histograms") or {}
        for name, histogram in last.items():
            found[name].append(histogram)
    means = {}
    for name, each in found.items():
        edges = list(each[0]["edges"])
        alike = [h["counts"] for h in each if list(h["edges"]) == edges and sum(h["counts"])]
        if alike:
            shares = [[count / sum(counts) for count in counts] for counts in alike]
            means[name] = (edges, [statistics.fmean(column) for column in zip(*shares, strict=True)])
    return means


def new_figure(*, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot: no window, no global state."""
    require()
    from matplotlib.figure import Figure as New

    figure = New(figsize=(8, height), layout="constrained")
    columns = min(panels, 2)
    axes = figure.subplots(math.ceil(panels / columns), columns, squeeze=False).ravel().tolist()
    for empty in axes[panels:]:
        empty.set_visible(False)
    for each in axes:
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw runs from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.plots", description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", metavar="MODEL_DIR", help="folders with a metrics.jsonl")
    parser.add_argument("--metric", default="auc", help="(%(default)s)")
    parser.add_argument("--output", default="plots", help="folder of the pictures (%(default)s)")
    given = parser.parse_args(arguments)
    series = []
    for folder in given.runs:
        records = runs.records(folder)
        test = next((r for r in reversed(records) if r["metrics"].get(given.metric) is not None), None)
        series.append(Series(Path(folder).name, [records], [test["metrics"][given.metric]] if test else []))
    try:
        names = draw(series, metric=given.metric, folder=Path(given.output))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(Path(given.output) / name) for name in names) or f"no run has {given.metric} to show")
    return 0 if names else 1


if __name__ == "__main__":
    sys.exit(main())
