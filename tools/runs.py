"""Run `python -m rec.main` as a user would, and read what it leaves in model_dir."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = "run.json"


class RunFailed(Exception):
    """rec.main ended with an exit code other than 0."""

    def __init__(self, command: Sequence[str], code: int) -> None:
        super().__init__(f"exit code {code}: {' '.join(command)}")
        self.code = code


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        config: name of the config without folder and ending.
        seed: train_config.seed.
        metrics: of the test split.
        epoch: epochs begun when the training ended.
        wall_s: seconds from start to end.
        cpu_s: processor seconds of the run with its reader processes.
        sha256: of the resolved config; another config is another run.
    """

    config: str
    seed: int
    metrics: dict[str, float]
    epoch: int
    wall_s: float
    cpu_s: float
    sha256: str


def call(*arguments: str, quiet: bool = False) -> None:
    """`python -m rec.main <arguments>`.

    Raises:
        RunFailed: its exit code was not 0.
    """
    command = [sys.executable, "-m", "rec.main", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, check=False, stdout=subprocess.DEVNULL if quiet else None
    )
    if done.returncode != 0:
        raise RunFailed(command[1:], done.returncode)


def records(model_dir: str | Path) -> list[dict]:
    """The evaluations in metrics.jsonl, in order; [] where there is none."""
    path = Path(model_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last(model_dir: str | Path, split: str) -> dict | None:
    """The last evaluation of a split."""
    return next((entry for entry in reversed(records(model_dir)) if entry.get("split") == split), None)


def finished(model_dir: str | Path, sha256: str) -> Run | None:
    """The run that ended in a folder, if it was of this config."""
    path = Path(model_dir) / RECORD
    if not path.exists():
        return None
    run = Run(**json.loads(path.read_text()))
    return run if run.sha256 == sha256 else None


def train(
    config: str | Path, *, model_dir: str | Path, seed: int, overrides: Sequence[str] = (), again: bool = False
) -> Run:
    """Train a config to the end and return its test metrics; what is finished is not run again.

    An unfinished run goes on where it stopped, as rec.main does.

    Args:
        config: the .config file.
        model_dir: where the run lies.
        seed: of initial weights, dropout and shuffle.
        overrides: texts for --set.
        again: forget an earlier run.
    """
    overrides = [*overrides, f"train_config {{ seed: {seed} }}"]
    sha256 = digest(config, overrides)
    if not again and (done := finished(model_dir, sha256)):
        return done
    arguments = ["--pipeline_config", str(config), "--model_dir", str(model_dir)]
    for text in overrides:
        arguments += ["--set", text]
    stale = Path(model_dir) / "digest"
    if again or (stale.exists() and stale.read_text() != sha256):
        arguments.append("--restart")
    Path(model_dir).mkdir(parents=True, exist_ok=True)
    (Path(model_dir) / RECORD).unlink(missing_ok=True)
    stale.write_text(sha256)
    start, before = time.monotonic(), _children()
    call(*arguments)
    wall, cpu = time.monotonic() - start, _children() - before
    test = last(model_dir, "test") or last(model_dir, "eval")
    if test is None:
        raise RuntimeError(f"{model_dir}/metrics.jsonl has no evaluation: nothing to report")
    run = Run(Path(config).stem, seed, test["metrics"], test["epoch"], round(wall, 1), round(cpu, 1), sha256)
    (Path(model_dir) / RECORD).write_text(json.dumps(asdict(run), indent=1) + "\n")
    return run


def digest(config: str | Path, overrides: Sequence[str]) -> str:
    """SHA-256 of the resolved config; model_dir and comments do not count."""
    from rec.config.load import load_config

    resolved = load_config(config, list(overrides)).config
    resolved.ClearField("model_dir")
    return hashlib.sha256(resolved.SerializeToString(deterministic=True)).hexdigest()


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
