"""Run `python -m rec.main` as a user would, and read what it leaves in model_dir."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD, LOG = "run.json", "log.txt"
# Begins the names of metrics by --mode top_k.
TOP_K = "top_k/"


class RunFailed(Exception):
    """rec.main ended with an exit code other than 0.

    Attributes:
        code: the exit code; negative is the signal that ended it.
        tail: the last lines that it wrote, where it wrote to a file.
    """

    def __init__(self, command: Sequence[str], code: int, tail: str = "") -> None:
        super().__init__(f"exit code {code}: {' '.join(command)}")
        self.code = code
        self.tail = tail


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
        resumed: whether it went on from a checkpoint, so that wall_s and cpu_s are of its last part only.
    """

    config: str
    seed: int
    metrics: dict[str, float]
    epoch: int
    wall_s: float
    cpu_s: float
    sha256: str
    resumed: bool = False


def call(*arguments: str, log: Path | None = None, threads: int | None = None, keep: Sequence[int] = ()) -> float:
    """`python -m rec.main <arguments>`; the processor seconds that it took with its reader processes.

    Args:
        arguments: of the command line.
        log: file that gets all it says; None lets it say so here.
        threads: of its arithmetic; None leaves the choice to torch and the environment.
        keep: file descriptors that stay open in it.

    Raises:
        RunFailed: its exit code was not 0.
    """
    command = [sys.executable, "-m", "rec.main", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PYTHONPATH": path} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with open(log, "ab") if log else contextlib.nullcontext() as out:
        process = subprocess.Popen(
            command, env=env, stdout=out, stderr=subprocess.STDOUT if out else None, pass_fds=keep
        )
        # Not the sum of all children: several of them may run beside each other.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RunFailed(command[1:], process.returncode, _tail(log) if log else "")
    return usage.ru_utime + usage.ru_stime


def _tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def locked(model_dir: Path) -> Iterator[int]:
    """Holds a run's folder; waits for another process that does. Yields the descriptor to keep open in a child.

    The child holds the lock with us: when we are killed it trains on, and who comes next waits for its end instead
    of writing into the same folder.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    with open(model_dir / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that trains in {model_dir}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def records(model_dir: str | Path) -> list[dict]:
    """The evaluations in metrics.jsonl, in order; [] where there is none."""
    path = Path(model_dir) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last(model_dir: str | Path, split: str) -> dict | None:
    """The last evaluation of a split."""
    return next((entry for entry in reversed(records(model_dir)) if entry.get("split") == split), None)


def finished(model_dir: str | Path, sha256: str, *, top_k: bool = False) -> Run | None:
    """The run that ended in a folder, if it was of this config, and with top-K metrics where they are asked for."""
    path = Path(model_dir) / RECORD
    if not path.exists():
        return None
    run = Run(**json.loads(path.read_text()))
    measured = not top_k or any(name.startswith(TOP_K) for name in run.metrics)
    return run if run.sha256 == sha256 and measured else None


def train(
    config: str | Path,
    *,
    model_dir: str | Path,
    seed: int,
    overrides: Sequence[str] = (),
    again: bool = False,
    log: bool = False,
    threads: int | None = None,
    top_k: bool = False,
) -> Run:
    """Train a config to the end and return its test metrics; what is finished is not run again.

    An unfinished run goes on where it stopped, as rec.main does.

    Args:
        config: the .config file.
        model_dir: where the run lies.
        seed: of initial weights, dropout and shuffle.
        overrides: texts for --set.
        again: forget an earlier run.
        log: write what rec.main says to log.txt in model_dir, instead of showing it.
        threads: of its arithmetic; None leaves the choice to torch and the environment.
        top_k: also measure the best checkpoint by --mode top_k.

    Raises:
        RunFailed: rec.main ended with an error.
        ConfigError: the config is wrong.
    """
    from rec.jobs.train import forget

    folder, overrides = Path(model_dir), with_seed(overrides, seed)
    sha256 = digest(config, overrides)
    with locked(folder) as lock:
        if not again and (done := finished(folder, sha256, top_k=top_k)):
            return done
        arguments = ["--pipeline_config", str(config), "--model_dir", str(folder)]
        for text in overrides:
            arguments += ["--set", text]
        stale = folder / "digest"
        restart = again or (stale.exists() and stale.read_text() != sha256)
        (folder / RECORD).unlink(missing_ok=True)
        if restart:
            # Here and not by --restart: a kill before rec.main comes to it must not leave another config's
            # checkpoints beside this one's digest.
            forget(folder)
            (folder / LOG).unlink(missing_ok=True)
        stale.write_text(sha256)
        resumed = any((folder / "checkpoints").glob("step-*"))
        start = time.monotonic()
        cpu = call(*arguments, log=folder / LOG if log else None, threads=threads, keep=[lock])
        wall = time.monotonic() - start
        test = last(folder, "test") or last(folder, "eval")
        if test is None:
            raise RuntimeError(f"{folder}/metrics.jsonl has no evaluation: nothing to report")
        metrics = dict(test["metrics"])
        if top_k:
            call(*arguments, "--mode", "top_k", log=folder / LOG if log else None, threads=threads, keep=[lock])
            metrics |= top_k_metrics(json.loads((folder / "top_k.json").read_text()))
        run = Run(Path(config).stem, seed, metrics, test["epoch"], round(wall, 1), round(cpu, 1), sha256, resumed)
        aside = folder / f"{RECORD}.tmp"
        aside.write_text(json.dumps(asdict(run), indent=1) + "\n")
        aside.replace(folder / RECORD)  # whole or not at all
        return run


def top_k_metrics(found: dict) -> dict[str, float]:
    """Metrics of a top_k.json by name, those of groups behind the group's."""
    named = {f"{TOP_K}{name}": value for name, value in found["metrics"].items()}
    for group, values in found["groups"].items():
        named |= {f"{TOP_K}{group}/{name}": value for name, value in values.items() if "_at_" in name}
    return {name: value for name, value in named.items() if value is not None}


def with_seed(overrides: Sequence[str], seed: int) -> list[str]:
    """The overrides of a run with a seed."""
    return [*overrides, f"train_config {{ seed: {seed} }}"]


def digest(config: str | Path, overrides: Sequence[str]) -> str:
    """SHA-256 of the resolved config; model_dir and comments do not count."""
    from rec.config.load import load_config

    resolved = load_config(config, list(overrides)).config
    resolved.ClearField("model_dir")
    return hashlib.sha256(resolved.SerializeToString(deterministic=True)).hexdigest()
