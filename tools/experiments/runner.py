"""Train the runs of an experiment: several side by side, finished ones left alone, failures kept for the report."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from rec.config.errors import ConfigError
from tools import runs
from tools.experiments.spec import Row, Spec

FAILURE = "failed.json"


@dataclass(frozen=True)
class Failure:
    """Why a run has no result.

    Attributes:
        reason: one line.
        tail: the last lines that it wrote.
    """

    reason: str
    tail: str = ""


@dataclass(frozen=True)
class Cell:
    """One run of the matrix, and what has become of it.

    Attributes:
        row, seed: which.
        folder: its model_dir.
        run: its result, None while it has none.
        failure: why it has none, None where it was not tried.
    """

    row: Row
    seed: int
    folder: Path
    run: runs.Run | None = None
    failure: Failure | None = None

    @property
    def title(self) -> str:
        """For logs."""
        return f"{self.row.title}, seed {self.seed}"


def survey(spec: Spec, folder: Path) -> list[Cell]:
    """Every run of the experiment, with the results that are there; loads and checks every config.

    Args:
        spec: the experiment.
        folder: of its runs.

    Raises:
        ConfigError: a config, or what is laid over it, is wrong.
    """
    cells = []
    for row in spec.rows:
        for seed in spec.seeds:
            home = folder / row.folder / f"seed{seed}"
            try:
                sha256 = runs.digest(row.config, runs.with_seed(row.overrides_of(seed), seed))
            except ConfigError as error:
                error.text = f"{row.title}: {error.text}"
                raise
            done = runs.finished(home, sha256, top_k=spec.message.top_k)
            cells.append(Cell(row, seed, home, done, None if done else _failure(home)))
    return cells


def execute(
    cells: list[Cell],
    *,
    jobs: int,
    threads: int,
    again: bool,
    done: Callable[[list[Cell], int], None],
    top_k: bool = False,
) -> list[Cell]:
    """Train what has no result yet.

    Args:
        cells: all runs.
        jobs: how many train at a time.
        threads: of the arithmetic of each.
        again: train finished ones too, from the start.
        done: called with all runs and the place of the one that ended, after each, in this thread.
        top_k: also measure each by --mode top_k.

    Returns:
        All runs with their results.
    """
    cells = list(cells)
    todo = [place for place, cell in enumerate(cells) if again or cell.run is None]
    stopping = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_one, cells[place], threads, again, top_k, stopping): place for place in todo}
        try:
            for future in _as_they_end(set(futures)):
                place = futures[future]
                cells[place] = future.result()
                done(cells, place)
        except BaseException:
            stopping.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return cells


def _as_they_end(waiting: set[Future[Cell]]) -> Iterator[Future[Cell]]:
    while waiting:
        ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from ended


def _one(cell: Cell, threads: int, again: bool, top_k: bool, stopping: threading.Event) -> Cell:
    row, path = cell.row, cell.folder / FAILURE
    try:
        run = runs.train(
            row.config,
            model_dir=cell.folder,
            seed=cell.seed,
            overrides=row.overrides_of(cell.seed),
            again=again,
            log=True,
            threads=threads,
            top_k=top_k,
        )
    except (runs.RunFailed, RuntimeError, OSError, ConfigError) as error:
        reason = f"exit code {error.code}" if isinstance(error, runs.RunFailed) else str(error)
        failure = Failure(reason, getattr(error, "tail", ""))
        if not stopping.is_set():
            path.write_text(json.dumps(asdict(failure), indent=1) + "\n")
        return Cell(row, cell.seed, cell.folder, None, failure)
    path.unlink(missing_ok=True)
    return Cell(row, cell.seed, cell.folder, run)


def _failure(folder: Path) -> Failure | None:
    path = folder / FAILURE
    return Failure(**json.loads(path.read_text())) if path.exists() else None
