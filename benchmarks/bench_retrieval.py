"""Retrieval: the two-tower yardstick, its loss by itself, and draws of negatives; one thread, JSON lines.

python -m benchmarks.bench_retrieval [--bench ../shared/bench] [--data data/bench/seq_like] [--only draws loss train]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import ours

LIMIT = 34.0
ITEMS, DRAWS = 1_000_000, 1_000_000
ROWS, WIDTH = 2048, 64
REPEATS = 7


def best(run: Callable[[], object]) -> float:
    """Least processor seconds of some calls: what is least disturbed by the machine's other work."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def draws() -> dict[str, float]:
    """Millions of draws a second from a catalogue of a million items, beside numpy's."""
    from rec.data.alias import alias_tables, draw

    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, ITEMS + 1)
    tables = alias_tables(weights)
    p = weights / weights.sum()
    build = best(lambda: alias_tables(weights))
    ours_s, numpy_s = best(lambda: draw(*tables, DRAWS, rng)), best(lambda: rng.choice(ITEMS, DRAWS, p=p))
    thousand, numpy_thousand = best(lambda: draw(*tables, 1024, rng)), best(lambda: rng.choice(ITEMS, 1024, p=p))
    return {
        "build_s": round(build, 3),
        "alias_M_per_s": round(DRAWS / ours_s / 1e6, 1),
        "numpy_choice_M_per_s": round(DRAWS / numpy_s / 1e6, 1),
        "alias_1024_ms": round(thousand * 1e3, 3),
        "numpy_choice_1024_ms": round(numpy_thousand * 1e3, 3),
    }


def loss() -> dict[str, float]:
    """In-batch softmax forward and backward, CPU seconds per million rows, beside cross_entropy of the whole matrix."""
    import torch
    import torch.nn.functional as F

    from rec.ops.sampled_softmax import sampled_softmax_sum

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    user = F.normalize(torch.randn(ROWS, WIDTH, generator=draw), dim=1).requires_grad_()
    item = F.normalize(torch.randn(ROWS, WIDTH, generator=draw), dim=1).requires_grad_()
    rows, ones, offset = torch.arange(ROWS), torch.ones(ROWS), torch.randn(ROWS, generator=draw)

    def fused() -> None:
        scaled = user / 0.1
        own = (scaled * item).sum(1, keepdim=True)
        sampled_softmax_sum(own, scaled, item, offset, rows, rows, ones).backward()

    def plain() -> None:
        F.cross_entropy((user / 0.1) @ item.t(), rows).backward()

    square = torch.randn(ROWS, ROWS, generator=draw)
    return {
        "fused_cpu_s_per_million": round(best(fused) / ROWS * 1e6, 1),
        "cross_entropy_cpu_s_per_million": round(best(plain) / ROWS * 1e6, 1),
        "matrix_product_gflops": round(2 * ROWS**3 / best(lambda: square @ square) / 1e9, 1),
    }


def train(bench: Path, data: Path) -> dict[str, object]:
    """The yardstick as it is, with all rows positive, and with 1024 shared drawn negatives in place of the batch's."""
    if not (data / "info.json").exists():
        command = [sys.executable, str(bench / "gen_seq_like.py"), str(data)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text = (bench / "dssm_inbatch.config").read_text()
    items = data / "items.parquet"
    _write_items(data, items)
    sampler = (
        f'negative_sampler {{ input_path: "{items}" num_sample: 1024 item_id_field: "item_id" '
        'attr_fields: ["item_id", "cate_id", "price"] }'
    )
    found: dict[str, object] = {"limit": LIMIT}
    with tempfile.TemporaryDirectory() as folder:
        for name, variant in {
            "as_given": text,
            "all_rows_positive": text.replace('label_fields: "label"', ""),
            "1024_drawn_all_rows_positive": text.replace('label_fields: "label"', sampler).replace(
                "in_batch_negative: true", "in_batch_negative: false"
            ),
        }.items():
            config = Path(folder) / f"{name}.config"
            config.write_text(variant)
            run = ours.traced(config, ours.paths(data))
            found[name] = {k: run[k] for k in ("cpu_s_per_million", "first_step_s", "peak_bytes", "metrics")}
    return found


def _write_items(data: Path, path: Path) -> None:
    """Every item of the training rows, drawn uniformly."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "train", columns=["item_id", "cate_id", "price"])
    first = np.unique(table["item_id"].to_numpy(), return_index=True)[1]
    pq.write_table(table.take(first), path)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_retrieval", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bench", default=str(ours.ROOT.parent / "shared/bench"), help="yardsticks (%(default)s)")
    parser.add_argument("--data", default="data/bench/seq_like", help="generated data (%(default)s)")
    parser.add_argument("--only", choices=["draws", "loss", "train"], nargs="*", help="some parts only")
    given = parser.parse_args()
    wanted = set(given.only or ["draws", "loss", "train"])
    if "draws" in wanted:
        print(json.dumps({"draws": draws()}), flush=True)
    if "loss" in wanted:
        print(json.dumps({"loss": loss()}), flush=True)
    if "train" in wanted:
        found = train(Path(given.bench).resolve(), Path(given.data).resolve())
        print(json.dumps({"train": found}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
