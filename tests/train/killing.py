"""Kills a training with SIGKILL at random moments, resumes it, and compares it with one that was left alone.

    python tests/train/killing.py --kills 20 [--pipeline_config configs/tiny/deepfm.config] [--set ...]

Prints one line per kill and ends with "bit-equal", or says what differs (exit code 1).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).parents[2]

# Everything that has state: dropout, averages, a schedule, accumulation, train metrics, workers, a shuffle.
SETTINGS = """
train_config {
  num_epochs: 12 save_checkpoints_steps: 5 keep_checkpoint_max: 3 log_step_count_steps: 1
  gradient_accumulation_steps: 2
  early_stopping { metric: "auc" patience: 100 }
  sparse_optimizer { adam_optimizer { lr: 0.01 } }
  dense_optimizer { ema { decay: 0.9 tables: true } cosine_annealing_learning_rate { warmup_size: 10 } }
}
export_config { after_training: false }
data_config { num_workers: 1 }
model_config {
  deepfm { deep { hidden_units: [32, 16] dropout_ratio: [0.3, 0.1] } }
  train_metrics { auc { thresholds: 100 } decay_step: 7 }
}
"""


def command(config: str, model_dir: Path, settings: Sequence[str]) -> list[str]:
    """The command line of a training."""
    sets = [part for text in settings for part in ("--set", text)]
    return [sys.executable, "-m", "rec.main", "--pipeline_config", config, "--model_dir", str(model_dir), *sets]


def run(cmd: list[str], log: Path, *, kill_after: float | None = None, timeout: float = 300) -> bool:
    """Runs to the end, or kills it so many seconds after its first step; returns whether it came to the end."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(cmd, stdout=out, stderr=subprocess.STDOUT, cwd=REPO, env=env)
        deadline = time.monotonic() + timeout
        kill_at = None
        while process.poll() is None:
            if kill_after is not None and kill_at is None and _trains(log):
                kill_at = time.monotonic() + kill_after
            if (kill_at is not None and time.monotonic() >= kill_at) or time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
                process.wait()
                if time.monotonic() > deadline:
                    raise TimeoutError(log.read_text(encoding="utf-8")[-2000:])
                return False
            time.sleep(0.002)
    if process.returncode != 0:
        raise RuntimeError(log.read_text(encoding="utf-8")[-4000:])
    return True


def _trains(log: Path) -> bool:
    text = log.read_text(encoding="utf-8")
    return " step " in text or "resumed from" in text


def lines(model_dir: Path) -> list[dict[str, object]]:
    """Of metrics.jsonl, without what may differ."""
    found = (json.loads(line) for line in (model_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in found]


def differences(whole: Path, broken: Path) -> list[str]:
    """What differs between two finished runs: entries of the last checkpoint, counters, lines of metrics."""
    import torch

    from rec.train.checkpoint import Checkpointer

    first, second = (Checkpointer(d / "checkpoints").latest() for d in (whole, broken))
    assert first is not None
    assert second is not None
    a, b = first.read(prefix=""), second.read(prefix="")
    found = [f"entry {n} is in one of them only" for n in sorted(a.keys() ^ b.keys())]
    found += [f"entry {n} differs" for n in sorted(a.keys() & b.keys()) if not torch.equal(a[n], b[n])]
    info = [{k: v for k, v in c.info.items() if k != "seconds"} for c in (first, second)]
    if info[0] != info[1]:
        found.append(f"state.json: {info[0]} and {info[1]}")
    if lines(whole) != lines(broken):
        found.append("metrics.jsonl differs")
    return found


def torture(config: str, settings: Sequence[str], folder: Path, *, kills: int, seed: int = 0) -> list[str]:
    """Trains once in peace, then again and again under kills until `kills` have hit an unfinished training.

    Returns:
        the differences of the killed trainings from the one in peace.
    """
    draw = random.Random(seed)
    began = time.monotonic()
    run(command(config, folder / "whole", settings), folder / "whole.log")
    last = json.loads((folder / "whole" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    seconds, steps = float(str(last["seconds"])), int(str(last["step"]))
    print(f"unbroken: {time.monotonic() - began:.1f} s, of which {seconds:.1f} s of {steps} steps", flush=True)
    found: list[str] = []
    hit = number = 0
    while hit < kills:
        broken, log = folder / f"broken-{number}", folder / f"broken-{number}.log"
        while hit < kills:
            # `seconds` has steps, saving and evaluating in it, so all of them are hit.
            after = draw.uniform(0.0, seconds)
            ended = run(command(config, broken, settings), log, kill_after=after)
            newest = max([int(p.name[5:]) for p in (broken / "checkpoints").glob("step-*")], default=0)
            if ended or newest == steps:
                break
            hit += 1
            print(f"kill {hit}: {after:.2f} s after the first sign of life; newest checkpoint {newest}", flush=True)
        run(command(config, broken, settings), log)
        found += [f"training {number}: {text}" for text in differences(folder / "whole", broken)]
        number += 1
    print(f"{hit} kills hit {number} unfinished trainings", flush=True)
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline_config", default="configs/tiny/deepfm.config")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    sys.path.insert(0, str(REPO))
    from tests.tiny_data import overrides, write_tiny

    with tempfile.TemporaryDirectory() as folder:
        # Its own rows, where the config reads those of configs/tiny; --set points another config at its data.
        tiny = overrides(write_tiny(Path(folder) / "data"))[:2] if "tiny" in Path(args.pipeline_config).parts else []
        settings = [SETTINGS, *tiny, *args.set]
        found = torture(args.pipeline_config, settings, Path(folder), kills=args.kills, seed=args.seed)
    print("\n".join(found) or "bit-equal")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
