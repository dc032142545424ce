"""Latency of an export: p50 and p99 of raw rows to scores, and of its parts, at batch 1 and 512.

`python -m benchmarks.bench_serving --export_dir <model_dir>/export` times a finished job;
`python -m benchmarks.bench_serving --config configs/deepfm_criteo.config` exports the config's network with initial
weights first (latency does not depend on them). One thread. Rows are the golden request, repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rec.export import layout
from rec.serve import Predictor

BATCHES = (1, 512)
WARM_UP = 50


def milliseconds(call: Callable[[], object], *, repeats: int) -> dict[str, float]:
    """Median, 99th percentile and spread (interquartile) of a call's wall time."""
    times = np.empty(repeats)
    for _ in range(WARM_UP):  # TorchScript specialises in its first runs
        call()
    for i in range(repeats):
        start = time.perf_counter()
        call()
        times[i] = time.perf_counter() - start
    p25, p50, p75, p99 = np.percentile(times * 1e3, (25, 50, 75, 99))
    return {"p50": round(p50, 4), "p99": round(p99, 4), "iqr": round(p75 - p25, 4)}


def measure(folder: Path, *, repeats: int) -> dict[str, Any]:
    """Latencies of an export, in milliseconds."""
    predictor = Predictor(folder)
    golden = pq.read_table(folder / layout.GOLDEN_REQUEST)
    many = pa.concat_tables([golden] * (max(BATCHES) // golden.num_rows + 1)).combine_chunks().to_batches()[0]
    found: dict[str, Any] = {}
    for size in BATCHES:
        rows = many.slice(0, size)
        features = predictor.encode(rows)
        found[f"batch {size}"] = {
            "raw rows to scores": milliseconds(lambda rows=rows: predictor.predict(rows), repeats=repeats),
            "encoder": milliseconds(lambda rows=rows: predictor.encode(rows), repeats=repeats),
            "scripted model": milliseconds(lambda features=features: predictor.score(features), repeats=repeats),
        }
    return found


def exported(config: str, folder: Path) -> Path:
    """An export of the config's network as it is initialised."""
    from rec.assemble import Job
    from rec.config.load import load_config
    from rec.export import Exporter
    from rec.world import World

    job = Job(load_config(config, ("export_config { torch_export: false }",)), World(), "cpu")
    made = Exporter(job.config, job.tasks(), directory=folder / "export").export(job.network())
    assert made is not None
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export_dir")
    parser.add_argument("--config", default="configs/deepfm_movielens.config")
    parser.add_argument("--repeats", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.export_dir) if args.export_dir else exported(args.config, Path(temporary))
        manifest = layout.read_manifest(folder)
        result = {
            "what": args.export_dir or args.config,
            "commit": manifest["versions"]["git"],
            "machine": f"{platform.machine()}, 1 thread",
            "torch": torch.__version__,
            "unit": "ms",
            "repeats": args.repeats,
            **measure(folder, repeats=args.repeats),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
