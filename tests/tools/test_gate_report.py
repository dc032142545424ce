from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rec.config.errors import ConfigError
from rec.config.load import load_config
from tools import gate_report
from tools.gate_report import Columns

ROOT = Path(__file__).parents[2]


def test_counts_fall_into_doubling_bins():
    values, gate = np.array([0, 1, 2, 3, 4, 7, 8, 0]), np.array([1, 0.2, 0.1, 0.3, 0.5, 0.5, 0.9, 1])
    bins = gate_report.binned("x", values, gate)
    assert [(b.first, b.last, b.rows) for b in bins] == [(0, 0, 2), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 8, 1)]
    assert [b.mean for b in bins] == pytest.approx([1, 0.2, 0.2, 0.5, 0.9])
    assert bins[2].std == pytest.approx(0.1)


def test_lengths_of_lists_and_of_texts():
    lists = pa.chunked_array([pa.array([[1, 2], [], None], pa.list_(pa.int64()))])
    assert gate_report.lengths(lists, ";").tolist() == [2, 0, 0]
    texts = pa.chunked_array([["7;8;9", "", None, "7"]])
    assert gate_report.lengths(texts, ";").tolist() == [3, 0, 0, 1]


def test_popularity_counts_the_training_rows_of_the_item():
    seen = pa.chunked_array([[5, 5, 7], [5]])
    items = pa.chunked_array([pa.array([7, 5, 9, None], pa.int32())])
    assert gate_report.popularity(items, seen).tolist() == [1, 3, 0, 0]


def test_a_report_has_both_counts_and_takes_the_mean_of_a_vector_gate(tmp_path):
    gates = pa.FixedSizeListArray.from_arrays(pa.array([0.2, 0.4, 0.6, 1.0], pa.float32()), 2)
    rows = pa.table({"hist": pa.array([[1, 2, 3], []]), "item": [5, 5], "gate": gates})
    columns = Columns("hist", "item", ";", 2)
    bins = gate_report.report(rows, columns, pa.chunked_array([[5, 5]]))
    # Popularity is of the row with a history: without one the gate is what the rule says.
    assert [(b.x, b.first, b.last, b.rows) for b in bins] == [
        ("history_length", 0, 0, 1), ("history_length", 2, 2, 1), ("item_popularity", 2, 2, 1),
    ]  # fmt: skip
    assert [b.mean for b in bins] == pytest.approx([0.8, 0.3, 0.3])
    gate_report.write_csv(tmp_path / "gate.csv", bins)
    with open(tmp_path / "gate.csv") as f:
        first = next(csv.DictReader(f))
    assert (first["by"], first["from"], first["rows"], first["gate_mean"]) == ("history_length", "0", "1", "0.800000")


def test_it_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    bins = gate_report.binned("history_length", np.array([0, 1, 5]), np.array([1.0, 0.5, 0.2]))
    gate_report.draw(bins).savefig(tmp_path / "gate.png")
    assert (tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_history_and_target_are_found_in_the_config():
    config = load_config(ROOT / "configs/tiny/mdaf.config").config
    assert gate_report.columns_of(config) == Columns("hist__item_id", "item_id", ";", 10)


def test_a_model_without_a_gate_is_refused():
    config = load_config(ROOT / "configs/tiny/dcn_v2.config").config
    with pytest.raises(ConfigError, match="the model has no gate"):
        gate_report.columns_of(config)
