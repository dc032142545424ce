"""Train a matrix of models, variants and random seeds, and compare: `python -m tools.experiment FILE`.

FILE is an Experiment message (docs/reference/experiment.md). What is finished is not trained again, and what was killed
goes on, so the same command is given until all is done. Writes <output>/<name>.md, .json, .csv and plots.

Exit codes: 0 all runs have a result, 1 some failed, 2 the file or a config is wrong.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rec.config.errors import ConfigError
from tools import plots, runs
from tools.experiments import report, runner, spec
from tools.tables import plain

DONE, FAILED, WRONG_CONFIG = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an experiment from the command line."""
    given = parser().parse_args(arguments)
    try:
        experiment = spec.load(given.file, seeds=given.seeds)
        if given.set:
            experiment = spec.overridden(experiment, given.set)
        return run(
            experiment,
            folder=Path(given.runs) if given.runs else Path("experiments") / experiment.name,
            output=Path(given.output),
            only=given.models,
            jobs=0 if given.report_only else given.jobs,
            threads=given.threads,
            again=given.again,
            draw=not given.no_plots,
            command=given.command or _command(given),
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_CONFIG
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    p = argparse.ArgumentParser(prog="python -m tools.experiment", description=__doc__.split("\n\n")[0])
    p.add_argument("file", help="the experiment, e.g. configs/experiments/mdaf_ablation.textproto")
    p.add_argument("--seeds", type=_positive, help="this many random seeds (default: as the file says)")
    p.add_argument("--models", nargs="+", metavar="NAME", help="train only these, by name or folder; report all")
    p.add_argument("--jobs", type=_positive, default=1, help="runs beside each other (%(default)s)")
    p.add_argument("--threads", type=_positive, default=1, help="threads of each run's arithmetic (%(default)s)")
    p.add_argument("--runs", help="folder of the runs (default: experiments/<name of the file>)")
    p.add_argument("--output", default="docs/results", help="folder of the page (%(default)s)")
    p.add_argument("--set", action="append", default=[], help="piece of config laid over every run, after all others")
    p.add_argument("--again", action="store_true", help="train finished runs again, from the start")
    p.add_argument("--report-only", action="store_true", help="train nothing, report what is finished")
    p.add_argument("--command", help=argparse.SUPPRESS)  # what the page says that it was made by
    p.add_argument("--no-plots", action="store_true", help="draw nothing (matplotlib is not needed then)")
    return p


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def run(
    experiment: spec.Spec,
    *,
    folder: Path,
    output: Path,
    only: Sequence[str] | None,
    jobs: int,
    threads: int,
    again: bool,
    draw: bool,
    command: str,
) -> int:
    """Train what is missing and write the report after every run; returns the exit code.

    Args:
        experiment: what to run.
        folder: of its runs.
        output: folder of the page.
        only: names or folders of the models to train; None trains all.
        jobs: runs beside each other; 0 trains nothing.
        threads: of each run's arithmetic.
        again: train finished runs again.
        draw: whether to draw plots.
        command: that makes the page again.
    """
    if draw:
        plots.require()
    cells = runner.survey(experiment, folder)
    chosen = _chosen(experiment, cells, only)
    where = f"commit {_commit()}, {_machine(threads)}"
    if jobs:
        todo = [cell for cell in chosen if again or cell.run is None]
        print(f"{len(cells)} runs, {len(cells) - len(todo)} of them finished or not asked for; in {folder}", flush=True)
        others = [cell for cell in cells if cell not in chosen]
        ended = 0

        def say(now: list[runner.Cell], place: int) -> None:
            nonlocal ended
            ended += 1
            print(f"[{ended}/{len(todo)}] {_outcome(now[place], experiment.metrics)}", flush=True)
            report.write(report.build(experiment, [*now, *others]), output, command, where)

        chosen = runner.execute(
            chosen, jobs=jobs, threads=threads, again=again, done=say, top_k=experiment.message.top_k
        )
        cells = [*chosen, *others]
    drawn = plots.of_experiment(experiment, cells, output / experiment.name) if draw else ()
    known = report.build(experiment, cells, plots=drawn)
    if known.lines:  # an empty report must not take the place of one that says something
        report.write(known, output, command, where)
    _show(known, output)
    return FAILED if any(cell.run is None for cell in chosen) and jobs else DONE


def _chosen(experiment: spec.Spec, cells: Sequence[runner.Cell], only: Sequence[str] | None) -> list[runner.Cell]:
    if not only:
        return list(cells)
    names = {row.model: row.model for row in experiment.rows}
    names |= {row.folder.split("/")[0]: row.model for row in experiment.rows}
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(f"no model {', '.join(unknown)}; this experiment has {', '.join(sorted(names))}")
    wanted = {names[name] for name in only}
    return [cell for cell in cells if cell.row.model in wanted]


def _outcome(cell: runner.Cell, metrics: Sequence[str]) -> str:
    if cell.run is None:
        failure = cell.failure or runner.Failure("no result")
        tail = "\n".join(f"    {line}" for line in failure.tail.splitlines())
        return f"{cell.title}: FAILED, {failure.reason}; log in {cell.folder / runs.LOG}\n{tail}"
    values = "  ".join(f"{m} {v:.4f}" for m in metrics if (v := cell.run.metrics.get(m)) is not None)
    return f"{cell.title}: {values}  {cell.run.cpu_s:.0f} CPU s"


def _show(known: report.Report, output: Path) -> None:
    if known.lines:
        print(plain(*report.table(known)))
    for tests, name in (
        (known.models, known.spec.message.baseline),
        (known.variants, known.spec.message.baseline_variant),
    ):
        if tests:
            print(f"\n{known.spec.metrics[0]} against {name}\n{plain(*report.tests_table(known, tests))}")
    if known.missing:
        print(f"\n{known.missing} runs have no result, {len(known.failed)} of them failed")
    if known.lines:
        print(f"written to {output / known.spec.name}.md, .json and .csv")


def _command(given: argparse.Namespace) -> str:
    """What makes the page again: options that change it, not those of one session."""
    parts = ["python", "-m", "tools.experiment", given.file]
    parts += ["--seeds", str(given.seeds)] if given.seeds else []
    for text in given.set:
        parts += ["--set", text]
    return shlex.join(parts)


def _commit() -> str:
    command = ["git", "-C", str(runs.ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine(threads: int) -> str:
    from importlib import metadata

    # Of its metadata: a report need not import torch.
    return f"torch {metadata.version('torch')}, {platform.machine()}, {os.cpu_count()} cores, {threads} thread(s) a run"


if __name__ == "__main__":
    sys.exit(main())
