"""DIN and BST over histories of 50 steps of width 64, batch 2048, beside DeepCTR-Torch's DIN and a plain PyTorch BST.

The section of `benchmarks.run`. All implementations train the same model, by parameters, in fresh processes and turn by
turn, so that what else the machine does hits all of them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import ours
from benchmarks.trace import WARM_UP
from tools.tables import Cell, markdown

BATCH, LENGTH, WIDTH, STEPS = 2048, 50, 64, 10
ITEMS = (100_000, 1_000_000)
AGES, CITIES = 10, 500
# MLP of DIN's attention and of both models: DeepCTR-Torch's.
ATTENTION, FINAL, HEADS = (64, 16), (256, 128), 8
FACTOR = 3


@dataclass(frozen=True)
class Variant:
    """A config of ours.

    Attributes:
        model: "din" or "bst".
        pooling: of BST.
        full: every history has 50 steps; otherwise 1 to 50, which cost the peers as much.
    """

    model: str
    pooling: str = "MEAN"
    full: bool = True

    def __str__(self) -> str:
        pooling = f" {self.pooling.lower()}" if self.model == "bst" else ""
        return f"ProtoRec {self.model.upper()}{pooling}, {LENGTH if self.full else f'1 to {LENGTH}'} steps"


# What each is held against. TARGET computes one token's output a row, so less than the mean over all.
VARIANTS = {
    "DeepCTR-Torch DIN": (Variant("din"), Variant("din", full=False)),
    "plain PyTorch BST, dense Adam": (
        Variant("bst"),
        Variant("bst", full=False),
        Variant("bst", "TARGET"),
        Variant("bst", "TARGET", full=False),
    ),
}
# By another optimizer than their usual one, for what the tables alone bring.
MORE_PEERS = ("DeepCTR-Torch DIN without L2", "plain PyTorch BST, sparse Adam")


def columns(items: int, rows: int, *, full: bool) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Columns of one value, ids of all steps, and lengths; ids start at 1 and small ones are frequent.

    Args:
        items: size of the catalogue.
        rows: number of rows.
        full: all histories have 50 steps; otherwise 1 to 50.
    """
    draw = np.random.default_rng(items)
    lengths = np.full(rows, LENGTH) if full else draw.integers(1, LENGTH + 1, rows)

    def ids(count: int) -> np.ndarray:
        return 1 + (draw.random(count) ** 2 * items).astype(np.int64)

    values = {"item_id": ids(rows), "age_id": draw.integers(0, AGES, rows), "city_id": draw.integers(0, CITIES, rows)}
    return values | {"label": draw.integers(0, 2, rows)}, ids(int(lengths.sum())), lengths


def write(folder: Path, items: int, *, full: bool) -> Path:
    """The rows as Parquet, for us to read."""
    values, steps, lengths = columns(items, (WARM_UP + STEPS) * BATCH, full=full)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    table = pa.table({**values, "hist__item_id": pa.ListArray.from_arrays(offsets, steps)})
    for part, rows in (("train", table), ("eval", table.slice(0, BATCH))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, folder / part / "part-0.parquet", row_group_size=65536)
    return folder


def config(variant: Variant, items: int) -> str:
    """The model as a config; paths come by --set."""
    sequence = (
        f'attn_mlp {{ hidden_units: {list(ATTENTION)} activation: "Dice" }}'
        if variant.model == "din"
        else f"num_heads: {HEADS} dropout_ratio: 0 pooling: {variant.pooling}"
    )
    item = f'num_buckets: {items + 1} embedding_name: "item"'
    return f"""
train_input_path: "unset" eval_input_path: "unset" model_dir: "unset"
train_config {{
  sparse_optimizer {{ adam_optimizer {{ lr: 0.001 }} constant_learning_rate {{}} }}
  dense_optimizer {{ adam_optimizer {{ lr: 0.001 }} constant_learning_rate {{}} }}
  num_epochs: 1 save_checkpoints_steps: 100000 use_tensorboard: false
}}
data_config {{ batch_size: {BATCH} dataset_type: ParquetDataset label_fields: "label" num_workers: 1 }}
feature_defaults {{ embedding_dim: {WIDTH} }}
feature_configs {{ id_feature {{ feature_name: "age_id" num_buckets: {AGES} }} }}
feature_configs {{ id_feature {{ feature_name: "city_id" num_buckets: {CITIES} }} }}
feature_configs {{ id_feature {{ feature_name: "item_id" {item} }} }}
feature_configs {{ sequence_feature {{ sequence_name: "hist" sequence_length: {LENGTH}
  features {{ id_feature {{ feature_name: "item_id" {item} }} }} }} }}
model_config {{
  feature_groups {{ group_name: "deep" group_type: DEEP feature_names: ["age_id", "city_id"] }}
  feature_groups {{ group_name: "seq" group_type: SEQUENCE feature_names: ["item_id", "hist__item_id"] }}
  {variant.model} {{ sequences {{ {sequence} }} final {{ hidden_units: {list(FINAL)} }} }}
  losses {{ binary_cross_entropy {{}} }}
  metrics {{ auc {{}} }}
}}
"""


def add_turn(found: dict[str, dict[str, list[float]]], folder: Path, search: Sequence[str]) -> None:
    """Measure each implementation once more: processor seconds per million rows.

    Args:
        found: figures by implementation and items of the catalogue, one a turn.
        folder: for data and configs.
        search: folders with the peers' packages.
    """

    def note(name: str, items: int, value: float) -> None:
        found.setdefault(name, {}).setdefault(str(items), []).append(round(value, 1))
        print(f"{name}, {items} items: {value:.0f}", flush=True)

    for items in ITEMS:
        data = {full: write(folder / f"{items}_{full}", items, full=full) for full in (True, False)}
        for variant in (one for variants in VARIANTS.values() for one in variants):
            path = folder / "benchmark.config"
            path.write_text(config(variant, items))
            note(str(variant), items, ours.traced(path, ours.paths(data[variant.full]))["cpu_s_per_million"])
        for peer in (*VARIANTS, *MORE_PEERS):
            try:
                out = ours.module("benchmarks.sequence_peers", peer, str(items), path=search)
            except RuntimeError as error:
                print(f"{peer}: not run: {str(error).splitlines()[-1]}", flush=True)
                continue
            note(peer, items, json.loads(out.strip().splitlines()[-1])["cpu_s_per_million"])


def rows(found: dict[str, dict[str, list[float]]]) -> list[list[Cell]]:
    """A row per implementation, beneath the peer that it is held against: median, spread, and the peer's over it."""
    table: list[list[Cell]] = []
    for (peer, variants), more in zip(VARIANTS.items(), MORE_PEERS, strict=True):
        for name in (peer, more, *map(str, variants)):
            row: list[Cell] = [name]
            for items in map(str, ITEMS):
                turns, base = found.get(name, {}).get(items), found.get(peer, {}).get(items)
                if not turns:
                    row += [None, None, None]
                    continue
                value = statistics.median(turns)
                ratio = statistics.median(base) / value if base else None
                missed = (
                    ratio is not None and ratio < FACTOR and items == str(ITEMS[-1]) and name.startswith("ProtoRec")
                )
                row += [f"{value:.0f}", f"{max(turns) - min(turns):.0f}"]
                row += [None if ratio is None else f"{ratio:.1f}x{' (missed)' if missed else ''}"]
            table.append(row)
    return table


def section(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Lines of the result page."""
    header = ["implementation"]
    for items in ITEMS:
        header += [f"{items // 1000}k items, CPU s / M rows", "spread", "faster"]
    turns = max(len(figures) for one in found.values() for figures in one.values())
    return [
        f"## Histories of {LENGTH} steps",
        "",
        markdown(header, rows(found)),
        "",
        f"Width {WIDTH}, batch {BATCH}; DIN with attention MLP 64-16 (Dice), BST with one layer of 8 heads over steps",
        "and target, a position beside each; MLP 256-128. All have as many parameters. Peers pad, so shorter",
        "histories cost them as much. They train from arrays in memory, ProtoRec from Parquet; it updates rows of the",
        f"batch (lazy Adam), dense Adam all rows. Faster: than the first row of the model; {FACTOR}x is asked at",
        f"{ITEMS[-1] // 1_000_000} M items. DeepCTR-Torch 0.3.0 as its examples use it (L2 1e-6 by default).",
        f"Medians of up to {turns} turns of fresh processes.",
        "",
    ]
