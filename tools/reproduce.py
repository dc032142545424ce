"""Published tables again: `python -m tools.reproduce frappe --seeds 3` trains every model of the table.

Runs that are finished are not run again, so the command goes on where it was stopped. Writes
docs/results/<table>.md and .json: mean and spread over the seeds beside the published value.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools import runs
from tools.published import TABLES, Table
from tools.tables import Cell, markdown, plain

HEADER = ["model", "runs", "AUC", "spread", "published", "difference", "logloss", "published", "epochs", "CPU s"]


def rows_of(table: Table, done: dict[str, list[runs.Run]]) -> list[list[Cell]]:
    """A row per model: mean and spread (largest minus smallest) over its runs."""
    rows: list[list[Cell]] = []
    for title, (_, published) in table.models.items():
        finished = done.get(title, [])
        if not finished:
            continue
        aucs = [run.metrics["auc"] for run in finished]
        auc, logloss = statistics.fmean(aucs), statistics.fmean(run.metrics["logloss"] for run in finished)
        verdict: Cell = None
        if published:
            reached = auc >= published.auc - table.allowance
            verdict = f"{auc - published.auc:+.4f}" + ("" if reached else " (below)")
        rows.append(
            [
                title,
                str(len(finished)),
                auc,
                max(aucs) - min(aucs),
                published.auc if published else None,
                verdict,
                logloss,
                published.logloss if published else None,
                f"{statistics.fmean(run.epoch for run in finished):.1f}",
                f"{statistics.fmean(run.cpu_s for run in finished):.0f}",
            ]
        )
    return rows


def page(name: str, table: Table, done: dict[str, list[runs.Run]]) -> str:
    """The result page in Markdown."""
    seeds = sorted({run.seed for finished in done.values() for run in finished})
    return "\n".join(
        [
            f"# {table.title}",
            "",
            f"Test metrics, mean over the runs (seeds {', '.join(map(str, seeds))}); "
            "spread is largest minus smallest AUC.",
            f"Published: {table.source}.",
            "",
            markdown(HEADER, rows_of(table, done)),
            "",
            table.note,
            "",
            f"Made by `python -m tools.reproduce {name} --seeds {len(seeds)}` from `configs/*_{name}.config`, "
            f"commit {_commit()}, {_machine()}.",
            "",
        ]
    )


def _commit() -> str:
    command = ["git", "-C", str(runs.ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> str:
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads()))
    return f"torch {torch.__version__}, {platform.machine()}, {threads} thread(s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a table from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__.split("\n\n")[0])
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--seeds", type=int, default=3, help="runs per model, seeds 0, 1, ... (%(default)s)")
    parser.add_argument("--models", nargs="*", help="only these configs, e.g. deepfm dcn_v2")
    parser.add_argument("--runs", default="experiments/reproduce", help="folder of the runs (%(default)s)")
    parser.add_argument("--output", default="docs/results", help="folder of the table (%(default)s)")
    parser.add_argument("--set", action="append", default=[], help="proto text merged over every config")
    parser.add_argument("--report-only", action="store_true", help="run nothing, write what is finished")
    given = parser.parse_args(arguments)
    table = TABLES[given.table]
    known = {stem for stem, _ in table.models.values()}
    if unknown := set(given.models or ()) - known:
        parser.error(f"no model {', '.join(sorted(unknown))}; this table has {', '.join(sorted(known))}")
    done: dict[str, list[runs.Run]] = {}
    for title, (stem, _) in table.models.items():
        config = runs.ROOT / "configs" / f"{stem}_{given.table}.config"
        for seed in range(given.seeds):
            folder = Path(given.runs) / config.stem / f"seed{seed}"
            overrides = [*given.set, f"train_config {{ seed: {seed} }}"]
            run = runs.finished(folder, runs.digest(config, overrides))
            if run is None and not given.report_only and (not given.models or stem in given.models):
                print(f"== {title}, seed {seed}: {folder}", flush=True)
                run = runs.train(config, model_dir=folder, seed=seed, overrides=given.set)
            if run is not None:
                done.setdefault(title, []).append(run)
                write(given.output, given.table, table, done)
    print(plain(HEADER, rows_of(table, done)))
    print(f"written to {Path(given.output) / given.table}.md and .json")
    return 0


def write(folder: str, name: str, table: Table, done: dict[str, list[runs.Run]]) -> None:
    """Write the page and its data; after every run, so that a stop loses nothing."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(page(name, table, done))
    data = {title: [asdict(run) for run in finished] for title, finished in done.items()}
    (out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
