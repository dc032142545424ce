"""Runs of rec.main under the clock of benchmarks.trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.shapes import DENSE, WIDTH

ROOT = Path(__file__).resolve().parents[1]


def module(name: str, *arguments: str, path: Sequence[str] = ()) -> str:
    """Standard output of `python -m <name>` on one thread, in a fresh process.

    Raises:
        RuntimeError: with the end of its error output.
    """
    search = os.pathsep.join([str(ROOT), *path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", name, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} {' '.join(arguments)}: {done.stderr.strip()[-6000:]}")
    return done.stdout


def traced(config: str | Path, *overrides: str, profile: bool = False) -> dict[str, Any]:
    """Train a config from scratch; the clock's report and the metrics of the evaluation at the end."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "trace.json"
        arguments = [str(report), *(["--profile"] if profile else [])]
        arguments += ["--pipeline_config", str(config), "--model_dir", f"{folder}/run", "--quiet"]
        for text in overrides:
            arguments += ["--set", text]
        module("benchmarks.trace", *arguments)
        found = json.loads(report.read_text())
        lines = (Path(folder) / "run/metrics.jsonl").read_text().splitlines()
        found["metrics"] = json.loads(lines[-1])["metrics"] if lines else {}
    return found


def paths(data: str | Path, *, evaluation: str = "eval") -> str:
    """Text for --set."""
    return f'train_input_path: "{data}/train/*.parquet" eval_input_path: "{data}/{evaluation}/*.parquet"'


def yardstick_data(bench: Path, target: Path, rows: int) -> None:
    """The files of ../shared/bench that a folder is named after, `criteo_like` or `seq_like`.

    Args:
        bench: with the generators.
        target: where the files go, unless they are there.
        rows: to train on.
    """
    info = target / "info.json"
    if info.exists() and json.loads(info.read_text())["train"]["rows"] == rows:
        return
    generator = bench / f"gen_{target.name}.py"
    if not generator.exists():
        raise SystemExit(f"{generator} is not there; give the folder of the yardsticks: --bench <folder>")
    print(f"generating {target}", file=sys.stderr, flush=True)
    command = [sys.executable, str(generator), str(target), "--train", str(rows)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def large_config(folder: Path, kind: str, vocabularies: Sequence[int], *, adam: bool) -> Path:
    """The models of benchmarks.peers as a config over generated data."""
    sparse = "adam_optimizer { lr: 0.001 }" if adam else "adagrad_optimizer { lr: 0.01 }"
    features = "\n".join(
        f'feature_configs {{ id_feature {{ feature_name: "cat_{place}" num_buckets: {rows} }} }}'
        for place, rows in enumerate(vocabularies)
    )
    deep = "{ hidden_units: [512, 256, 128] }"
    model = {
        "deepfm": f"deepfm {{ deep {deep} wide_embedding_dim: 1 }}",
        "dcn_v2": f"dcn_v2 {{ cross {{ cross_num: 2 low_rank: 0 }} deep {deep} }}",
    }[kind]
    wide = 'feature_groups { group_name: "wide" group_type: WIDE feature_names: "cat_*" }'
    pairs = 'feature_groups { group_name: "fm" group_type: DEEP feature_names: "cat_*" }'
    text = f"""
train_input_path: "unset" eval_input_path: "unset" model_dir: "unset"
train_config {{
  sparse_optimizer {{ {sparse} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: 0.001 }} constant_learning_rate {{}} }}
  num_epochs: 1 save_checkpoints_steps: 100000 use_tensorboard: false
}}
data_config {{ batch_size: 4096 dataset_type: ParquetDataset label_fields: "label" num_workers: 1 }}
feature_defaults {{ embedding_dim: {WIDTH} init_fn: "nn.init.normal_,std=0.01" }}
feature_configs {{ raw_feature {{ feature_name: "dense_[0-{DENSE - 1}]" }} }}
{features}
model_config {{
  {wide + pairs if kind == "deepfm" else ""}
  feature_groups {{ group_name: "deep" group_type: DEEP feature_names: "*" }}
  {model}
  losses {{ binary_cross_entropy {{}} }}
  metrics {{ auc {{}} }}
}}
"""
    path = folder / f"{kind}_{'adam' if adam else 'adagrad'}.config"
    path.write_text(text)
    return path
