"""Runs -> what is known of each row, and the page, table and data that say it."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools import runs
from tools.experiments import experiment_pb2 as pb
from tools.experiments.runner import Cell
from tools.experiments.spec import Row, Spec
from tools.experiments.stats import Paired, Summary, holm, paired, summary
from tools.tables import Cell as TableCell
from tools.tables import markdown

_FALLING = ("loss", "mse", "mae", "error")


def larger_is_better(metric: str) -> bool:
    """Whether a larger value of a metric is better; by its name, for runs whose package is not at hand."""
    return not any(part in metric for part in _FALLING)


def _counts_from_0(metric: str) -> bool:
    """Whether 0 is what a model without any use has: of lists of the K best."""
    return metric.rpartition("/")[2].startswith(("recall", "hr", "ndcg", "mrr"))


@dataclass(frozen=True)
class Line:
    """What the finished runs of a row say.

    Attributes:
        row: which.
        runs: by seed.
        metrics: of the table, those that the runs have.
        best_epochs: by run, the epoch whose evaluation was best; empty where none was recorded.
        gaps: by run, train minus validation of the first metric at that epoch; empty where it was not measured.
        cpu_s: mean processor seconds of runs that went through in one go, nan where none did.
    """

    row: Row
    runs: dict[int, runs.Run]
    metrics: dict[str, Summary]
    best_epochs: list[int]
    gaps: list[float]
    cpu_s: float


@dataclass(frozen=True)
class Test:
    """A row against another: paired by seed, and p adjusted for all tests of the table."""

    row: Row
    against: Row
    result: Paired
    p_holm: float


@dataclass(frozen=True)
class Report:
    """All that is known.

    Attributes:
        spec: the experiment.
        lines: of rows with a finished run.
        models: tests against the baseline.
        variants: tests against the baseline variant.
        failed: runs that were tried and have no result.
        missing: runs without a result, failed ones among them.
        plots: names of the pictures, in the folder beside the page.
    """

    spec: Spec
    lines: list[Line]
    models: list[Test]
    variants: list[Test]
    failed: list[Cell]
    missing: int
    plots: tuple[str, ...] = ()


def build(spec: Spec, cells: Sequence[Cell], *, plots: Sequence[str] = ()) -> Report:
    """What the finished runs say."""
    lines = []
    for row in spec.rows:
        done = {cell.seed: cell for cell in cells if cell.row == row and cell.run is not None}
        if done:
            lines.append(_line(spec, row, done))
    by_row = {line.row: line for line in lines}
    return Report(
        spec,
        lines,
        _tests(spec, by_row, [(row, spec.baseline_of(row)) for row in spec.rows]),
        _tests(spec, by_row, [(row, spec.baseline_variant_of(row)) for row in spec.rows]),
        [cell for cell in cells if cell.failure is not None],
        sum(cell.run is None for cell in cells),
        tuple(plots),
    )


def _line(spec: Spec, row: Row, done: dict[int, Cell]) -> Line:
    found = {seed: cell.run for seed, cell in done.items() if cell.run is not None}
    metrics = {}
    for metric in spec.metrics:
        values = [run.metrics[metric] for run in found.values() if run.metrics.get(metric) is not None]
        if values:
            metrics[metric] = summary(values)
    best = [_best(runs.records(cell.folder), spec.metrics[0]) for cell in done.values()]
    whole = [run.cpu_s for run in found.values() if not run.resumed]
    return Line(
        row,
        found,
        metrics,
        [record["epoch"] for record in best if record],
        [gap for record in best if record and (gap := record.get("gap", {}).get(spec.metrics[0])) is not None],
        statistics.fmean(whole) if whole else math.nan,
    )


def _best(records: Sequence[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """The first of the best evaluations."""
    sign = 1 if larger_is_better(metric) else -1
    there = [r for r in records if r["split"] == "eval" and r["metrics"].get(metric) is not None]
    return max(there, key=lambda r: sign * r["metrics"][metric], default=None)


def _tests(spec: Spec, lines: dict[Row, Line], pairs: Sequence[tuple[Row, Row | None]]) -> list[Test]:
    metric, found = spec.metrics[0], []
    for row, against in pairs:
        if against is None or row not in lines or against not in lines:
            continue
        ours, theirs = lines[row].runs, lines[against].runs
        seeds = [s for s in ours if s in theirs and metric in ours[s].metrics and metric in theirs[s].metrics]
        result = paired([ours[s].metrics[metric] for s in seeds], [theirs[s].metrics[metric] for s in seeds])
        if result is not None:
            found.append((row, against, result))
    adjusted = holm([result.p_t for _, _, result in found])
    return [Test(*each, p) for each, p in zip(found, adjusted, strict=True)]


def table(report: Report) -> tuple[list[str], list[list[TableCell]]]:
    """Header and rows of the table of results."""
    spec, lines = report.spec, report.lines
    referred = [m for m in spec.metrics if any(m in line.row.references for line in lines)]
    published = spec.message.reference_kind == pb.PUBLISHED
    header = ["model", *(["variant"] if spec.message.variants else []), "runs"]
    for metric in spec.metrics:
        header.append(metric)
        if metric in referred:
            header += ["published", "difference"] if published else ["best possible", "of the way"]
    gaps, epochs = any(line.gaps for line in lines), any(line.best_epochs for line in lines)
    header += [*(["gap"] if gaps else []), *(["best epoch"] if epochs else []), "epochs", "CPU s"]
    rows: list[list[TableCell]] = []
    for line in lines:
        cells: list[TableCell] = [line.row.model, *([line.row.variant] if spec.message.variants else [])]
        cells.append(str(len(line.runs)))
        for metric in spec.metrics:
            mean = line.metrics.get(metric)
            cells.append(_with_spread(mean))
            if metric in referred:
                reference = line.row.references.get(metric)
                cells += [reference, _verdict(spec, metric, mean, reference)]
        if gaps:
            cells.append(f"{statistics.fmean(line.gaps):+.4f}" if line.gaps else None)
        if epochs:
            cells.append(_average(line.best_epochs))
        cells.append(_average([run.epoch for run in line.runs.values()]))
        cells.append(None if math.isnan(line.cpu_s) else f"{line.cpu_s:.0f}")
        rows.append(cells)
    return header, rows


def _with_spread(mean: Summary | None) -> TableCell:
    if mean is None:
        return None
    return f"{mean.mean:.4f}" + ("" if math.isnan(mean.std) else f" ± {mean.std:.4f}")


def _average(values: Sequence[float]) -> TableCell:
    return f"{statistics.fmean(values):.1f}" if values else None


def _verdict(spec: Spec, metric: str, mean: Summary | None, reference: float | None) -> TableCell:
    if mean is None or reference is None:
        return None
    if spec.message.reference_kind == pb.BEST_POSSIBLE:
        if "auc" in metric:
            return f"{(mean.mean - 0.5) / (reference - 0.5):.0%}"
        return f"{mean.mean / reference:.0%}" if _counts_from_0(metric) else f"{mean.mean - reference:+.4f}"
    worse = (reference - mean.mean) * (1 if larger_is_better(metric) else -1)
    below = metric == spec.metrics[0] and worse > spec.message.reference_allowance
    return f"{mean.mean - reference:+.4f}" + (" (below)" if below else "")


def tests_table(report: Report, tests: Sequence[Test]) -> tuple[list[str], list[list[TableCell]]]:
    """Header and rows of a table of differences."""
    varied = bool(report.spec.message.variants)
    header = ["model", *(["variant"] if varied else []), "pairs", "difference", "95 % interval"]
    header += ["p (t)", "p (Holm)", "p (exact)"]
    rows: list[list[TableCell]] = [
        [
            test.row.model,
            *([test.row.variant] if varied else []),
            str(test.result.n),
            f"{test.result.mean:+.4f}",
            f"{test.result.low:+.4f} to {test.result.high:+.4f}",
            _p(test.result.p_t),
            _p(test.p_holm),
            _p(test.result.p_exact),
        ]
        for test in tests
    ]
    return header, rows


def _p(value: float) -> TableCell:
    if math.isnan(value):
        return None
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def page(report: Report, command: str, where: str) -> str:
    """The result page in Markdown.

    Args:
        report: what is known.
        command: that makes the page again.
        where: commit and machine.
    """
    spec, message = report.spec, report.spec.message
    seeds = sorted({seed for line in report.lines for seed in line.runs})
    parts = [f"# {message.title}", ""]
    if message.note:
        parts += [message.note.strip(), ""]
    parts.append(
        f"Test metrics, mean ± standard deviation over random seeds ({', '.join(map(str, seeds)) or 'no run yet'})."
    )
    if message.per_seed:
        names = [message.per_seed[seed % len(message.per_seed)].name for seed in seeds]
        parts.append(f"Each seed has its own: {', '.join(names)}.")
    if message.reference_source:
        what = "Published" if message.reference_kind == pb.PUBLISHED else "Best possible"
        parts.append(f"{what}: {message.reference_source}.")
    if any(line.gaps for line in report.lines):
        parts.append(f"gap: {spec.metrics[0]} of training rows minus that of validation rows, at the best epoch.")
    parts += ["", markdown(*table(report)), ""]
    if message.reading:
        parts += ["## Reading", "", message.reading.strip(), ""]
    for tests, name in ((report.models, message.baseline), (report.variants, message.baseline_variant)):
        if tests:
            parts += [f"## {spec.metrics[0]} against {name}", "", markdown(*tests_table(report, tests)), "", ""]
            parts[-2] = _caution(tests)
            parts.append("")
    for name in report.plots:
        parts += [f"![{Path(name).stem.replace('_', ' ')}]({spec.name}/{name})", ""]
    if report.missing:
        parts += [_incomplete(report), ""]
    parts.append(f"Made by `{command}`, {where}.")
    return "\n".join(parts) + "\n"


def _caution(tests: Sequence[Test]) -> str:
    n = max(test.result.n for test in tests)
    return (
        "Paired by seed. p (t): two-sided paired t-test; p (Holm): the same, adjusted for the number of rows; "
        f"p (exact): sign-flip permutation test. With {n} pairs a test finds only differences that are large "
        f"against the spread, and the exact p cannot be below {2 / 2**n:.2g}: a large p does not show that two "
        "rows are alike."
    )


def _incomplete(report: Report) -> str:
    text = f"{report.missing} of {len(report.spec.rows) * len(report.spec.seeds)} runs have no result."
    lines = [f"- {cell.title}: {cell.failure.reason}" for cell in report.failed if cell.failure]
    return "\n".join([text, *(["", "Failed:", "", *lines] if lines else [])])


def data(report: Report, command: str, where: str) -> dict[str, Any]:
    """All figures, JSON-able."""
    tests = {test.row: test for test in report.models}
    variants = {test.row: test for test in report.variants}
    return _no_nan(
        {
            "title": report.spec.message.title,
            "made_by": command,
            "where": where,
            "rows": [
                {
                    "model": line.row.model,
                    "variant": line.row.variant,
                    "config": line.row.config.name,
                    "overrides": list(line.row.overrides),
                    "per_seed": list(line.row.per_seed),
                    "metrics": {name: asdict(value) for name, value in line.metrics.items()},
                    "references": line.row.references,
                    "best_epochs": line.best_epochs,
                    "gaps": line.gaps,
                    "cpu_s": line.cpu_s,
                    "against_baseline": _test(tests.get(line.row)),
                    "against_baseline_variant": _test(variants.get(line.row)),
                }
                for line in report.lines
            ],
            "runs": [
                {"model": line.row.model, "variant": line.row.variant, **asdict(run)}
                for line in report.lines
                for run in line.runs.values()
            ],
            "failed": [{"run": cell.title, **asdict(cell.failure)} for cell in report.failed if cell.failure],
        }
    )


def _test(test: Test | None) -> dict[str, Any] | None:
    return None if test is None else {**asdict(test.result), "p_holm": test.p_holm, "against": test.against.title}


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_no_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def csv_text(report: Report) -> str:
    """One line a run."""
    names = list(dict.fromkeys(name for line in report.lines for run in line.runs.values() for name in run.metrics))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "variant", "seed", *names, "epochs", "wall_s", "cpu_s", "resumed"])
    for line in report.lines:
        for seed, run in line.runs.items():
            values = [run.metrics.get(name) for name in names]
            writer.writerow(
                [line.row.model, line.row.variant, seed, *values, run.epoch, run.wall_s, run.cpu_s, int(run.resumed)]
            )
    return out.getvalue()


def write(report: Report, folder: Path, command: str, where: str) -> None:
    """Page, data and table: <folder>/<name>.md, .json and .csv."""
    folder.mkdir(parents=True, exist_ok=True)
    name = report.spec.name
    (folder / f"{name}.md").write_text(page(report, command, where))
    (folder / f"{name}.json").write_text(json.dumps(data(report, command, where), indent=1) + "\n")
    (folder / f"{name}.csv").write_text(csv_text(report))
