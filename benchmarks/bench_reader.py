"""What the pipeline from Parquet to batches costs: CPU seconds per million rows of worker and trainer together.

`python -m benchmarks.bench_reader --data <folder of parquet>` reads int_0..int_12, cat_0..cat_25 and label (the layout
of `gen_criteo_like.py`) in batches of 4096, shuffled, through one worker; the trainer's side takes the batches and does
nothing.
Start-up of the worker process is measured apart. `--profile` prints where the time of an in-process reader goes.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import statistics
import time

from google.protobuf import text_format

from benchmarks.shapes import BATCH, DENSE, FIELDS, VOCABULARIES
from rec.data.encoder import Encoder
from rec.data.loader import Loader
from rec.protos import pipeline_pb2


def config() -> pipeline_pb2.EasyRecConfig:
    """13 raw features and 26 id features, ids given as rows of their tables."""
    text = "data_config { dataset_type: ParquetDataset fg_mode: FG_NONE label_fields: 'label' }\n"
    for i in range(DENSE):
        text += f"feature_configs {{ raw_feature {{ feature_name: 'int_{i}' }} }}\n"
    for i in range(FIELDS):
        rows = VOCABULARIES[i]
        text += (
            f"feature_configs {{ id_feature {{ feature_name: 'cat_{i}' num_buckets: {rows} embedding_dim: 16 }} }}\n"
        )
    return text_format.Parse(text, pipeline_pb2.EasyRecConfig())


def children_cpu() -> float:
    """CPU seconds of ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(folder: str, *, workers: int, shuffle: bool, epochs: int) -> dict[str, float]:
    """CPU seconds per million rows of one run of `epochs` epochs; `start` is what a worker costs without rows."""
    made = config()
    costs = []
    for count in (0, epochs):
        loader = Loader(
            Encoder.from_config(made),
            folder,
            made.data_config,
            batch_size=BATCH,
            shuffle=shuffle,
            num_workers=workers,
        )
        before = children_cpu()
        cpu, wall = time.process_time(), time.perf_counter()
        if count == 0 and workers:
            loader.start()
            next(loader.epoch(0))
        rows = sum(batch.size for epoch in range(count) for batch in loader.epoch(epoch))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        loader.close()
        costs.append((rows, cpu, children_cpu() - before, wall))
    (_, _, start, _), (rows, trainer, worker, wall) = costs
    million = rows / 1e6
    return {
        "rows": rows,
        "trainer_cpu_s_per_M": trainer / million,
        "worker_cpu_s_per_M": worker / million,
        "cpu_s_per_M": (trainer + worker) / million,
        "worker_start_cpu_s": start,
        "rows_per_s": rows / wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of parquet files")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no_shuffle", action="store_true")
    parser.add_argument("--profile", action="store_true", help="profile one epoch without workers instead")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    if args.profile:
        made = config()
        loader = Loader(
            Encoder.from_config(made), args.data, made.data_config, batch_size=BATCH, shuffle=True, num_workers=0
        )
        for _ in loader.epoch(0):
            pass
        profile = cProfile.Profile()
        profile.runcall(lambda: [None for _ in loader.epoch(1)])
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    runs = [
        measure(args.data, workers=args.workers, shuffle=not args.no_shuffle, epochs=args.epochs)
        for _ in range(args.repeats)
    ]
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    spread = [round(run["cpu_s_per_M"], 3) for run in runs]
    print(json.dumps({k: round(v, 3) for k, v in figures.items()} | {"runs": spread, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
