"""Retrieval: the two-tower yardstick with other negatives, its loss, draws, an index, top-K; one thread, JSON lines.

python -m benchmarks.bench_retrieval [--bench ../shared/bench] [--data data/bench/seq_like] [--only draws loss ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.shapes import SEQUENCE_ROWS
from tools.tables import Cell, markdown

ITEMS, DRAWS = 1_000_000, 1_000_000
INDEXED, QUERIES, CLUSTERS, NEAREST = 100_000, 1000, 1000, 100
USERS, RELEVANT, SEEN = 1024, 5, 50
ROWS, WIDTH = 2048, 64
REPEATS = 7


def best(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least processor seconds of some calls: what is least disturbed by the machine's other work."""
    seconds = []
    for _ in range(repeats):
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


def index() -> dict[str, dict[str, float]]:
    """HNSW as it is by default beside the exact index: vectors in clusters, as those of items, and without any."""
    from rec.protos import export_pb2
    from rec.serve.index import agreement, build, faiss, search

    faiss().omp_set_num_threads(1)
    found = {}
    rng = np.random.default_rng(0)
    for name, clusters in (("clusters", CLUSTERS), ("no structure", 0)):
        spread = rng.standard_normal((INDEXED + QUERIES, WIDTH), np.float32)
        if clusters:
            spread += 2 * rng.standard_normal((clusters, WIDTH), np.float32)[rng.integers(clusters, size=len(spread))]
        spread /= np.linalg.norm(spread, axis=1, keepdims=True)
        items, users = spread[:INDEXED], spread[INDEXED:]
        exact = build(items, export_pb2.ItemIndex())
        start = time.process_time()
        graph = build(items, export_pb2.ItemIndex(hnsw=export_pb2.HnswIndex()))
        seconds = time.process_time() - start
        right, near = search(exact, users, NEAREST)[1], search(graph, users, NEAREST)[1]
        found[name] = {
            "build_s": round(seconds, 1),
            "recall": round(agreement(near, right), 4),
            "hnsw_per_s": round(QUERIES / best(lambda graph=graph, users=users: search(graph, users, NEAREST), 3)),
            "flat_per_s": round(QUERIES / best(lambda exact=exact, users=users: search(exact, users, NEAREST), 3)),
        }
    return found


def top_k() -> dict[str, float]:
    """Users a second of the evaluation against a million items, and of its products alone."""
    import torch
    import torch.nn.functional as F

    from rec.data.catalogue import Pairs
    from rec.jobs.top_k import TOP_K
    from rec.metrics.catalogue import CatalogueMetrics
    from rec.train.top_k import ITEMS as BLOCK

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    items, users = (F.normalize(torch.randn(rows, WIDTH, generator=draw)) for rows in (ITEMS, USERS))
    rng = np.random.default_rng(0)
    relevant, seen = (
        Pairs(np.repeat(np.arange(USERS), each), rng.integers(ITEMS, size=USERS * each)) for each in (RELEVANT, SEEN)
    )

    def products() -> None:
        for first in range(0, ITEMS, BLOCK):
            users @ items[first : first + BLOCK].T

    def evaluate() -> None:
        metrics = CatalogueMetrics(items=ITEMS, top_k=TOP_K)
        blocks = ((first, users @ items[first : first + BLOCK].T) for first in range(0, ITEMS, BLOCK))
        metrics.update(blocks, users=USERS, relevant=relevant, seen=seen)

    return {
        "users_per_s": round(USERS / best(evaluate, 3), 1),
        "products_users_per_s": round(USERS / best(products, 3), 1),
    }


def train(bench: Path, data: Path) -> dict[str, Any]:
    """The yardstick with all rows positive, and with 1024 shared drawn negatives in place of the batch's."""
    ours.yardstick_data(bench, data, SEQUENCE_ROWS)
    text = (bench / "dssm_inbatch.config").read_text()
    items = data / "items.parquet"
    _write_items(data, items)
    sampler = (
        f'negative_sampler {{ input_path: "{items}" num_sample: 1024 item_id_field: "item_id" '
        'attr_fields: ["item_id", "cate_id", "price"] }'
    )
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variant in {
            "all rows positive": text.replace('label_fields: "label"', ""),
            "1024 drawn negatives, all rows positive": text.replace('label_fields: "label"', sampler).replace(
                "in_batch_negative: true", "in_batch_negative: false"
            ),
        }.items():
            config = Path(folder) / "benchmark.config"
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


def section(found: dict[str, Any]) -> list[str]:
    """Lines of the result page."""
    lines = ["## Retrieval", ""]
    if found.get("train"):
        rows: list[list[Cell]] = [
            [name, f"{run['cpu_s_per_million']:.1f}", f"{run['metrics']['recall_at_10']:.4f}"]
            for name, run in found["train"].items()
        ]
        lines += [markdown(["dssm_inbatch with", "CPU s / M rows", "recall@10"], rows), ""]
    if found.get("loss"):
        one = found["loss"]
        lines += [
            f"- In-batch softmax of {ROWS} rows, width {WIDTH}, forward and backward: {one['fused_cpu_s_per_million']} "
            f"CPU s per million rows; `cross_entropy` of the matrix {one['cross_entropy_cpu_s_per_million']}.",
        ]
    if found.get("draws"):
        one = found["draws"]
        lines += [
            f"- Draws of negatives from {ITEMS // 10**6} M items by weight: {one['alias_M_per_s']} M/s, "
            f"`numpy.random.Generator.choice(p=...)` {one['numpy_choice_M_per_s']} M/s; 1024 of them "
            f"{one['alias_1024_ms']} ms, numpy's {one['numpy_choice_1024_ms']} ms. Tables are built in "
            f"{one['build_s']} s.",
        ]
    for name, one in found.get("index", {}).items():
        lines += [
            f"- HNSW over {INDEXED // 1000} k vectors of width {WIDTH}, {name}: recall@{NEAREST} {one['recall']} of "
            f"the flat index, {one['hnsw_per_s']} searches/s, flat {one['flat_per_s']}; built in {one['build_s']} s.",
        ]
    if found.get("top_k"):
        one = found["top_k"]
        lines += [
            f"- Evaluation against {ITEMS // 10**6} M items of width {WIDTH}, seen ones filtered, recall, NDCG and MRR "
            f"at 10 to 100: {one['users_per_s']} users/s; the products alone {one['products_users_per_s']}.",
        ]
    return [*lines, ""]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_retrieval", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bench", default=str(ours.ROOT.parent / "shared/bench"), help="yardsticks (%(default)s)")
    parser.add_argument("--data", default="data/bench/seq_like", help="generated data (%(default)s)")
    parts: dict[str, Callable[[], object]] = {
        "draws": draws,
        "loss": loss,
        "index": index,
        "top_k": top_k,
        "train": lambda: train(Path(given.bench).resolve(), Path(given.data).resolve()),
    }
    parser.add_argument("--only", choices=list(parts), nargs="*", help="some parts only")
    given = parser.parse_args()
    for name in given.only or parts:
        print(json.dumps({name: parts[name]()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
