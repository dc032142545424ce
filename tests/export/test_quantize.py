"""Smaller tables: codes by hand, scores near, effect measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rec.export import layout, script
from rec.export.quantize import quantized, to_int8
from rec.export.samples import made_up_rows, tensors_of
from tests.export.small_job import data, export, job


def test_int8_by_hand():
    # from -1 to 1.55 in 255 steps of .01; a row of equal values is its smallest value
    codes, scales = to_int8(torch.tensor([[-1.0, 0.0, 1.55], [3.0, 3.0, 3.0]]))
    assert codes.tolist() == [[0, 100, 255], [0, 0, 0]]
    torch.testing.assert_close(scales, torch.tensor([[0.01, -1.0], [0.0, 3.0]]))


def test_int8_is_within_half_a_step():
    table = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    codes, scales = to_int8(table)
    back = codes.float() * scales[:, :1] + scales[:, 1:]
    step = (table.amax(1) - table.amin(1)) / 255
    # half a step, and float32 rounding of values up to 4
    assert ((back - table).abs() <= step[:, None] / 2 + 1e-6).all()


@pytest.mark.parametrize(("kind", "share", "near"), [("FP16", 0.6, 1e-3), ("INT8", 0.9, 2e-2)])
def test_scores_stay_near_and_the_effect_is_measured(kind: str, share: float, near: float, tmp_path: Path):
    folder, *_ = export(tmp_path / "small", rows=data(), export=f'table_data_type: "{kind}" torch_export: true')
    manifest = layout.read_manifest(folder)
    tables = manifest["tables"]
    assert tables["data_type"] == kind
    changes = tables["effect"]["max_abs_score_difference"]
    assert 0 < changes["300 rows of data"] < near
    auc = tables["effect"]["metrics"]["auc"]
    assert auc["here"] - auc["fp32"] == auc["change"]
    assert tables["metrics"]["auc"] == auc["here"]
    assert manifest["ops_libraries"] == []
    assert "error" not in manifest["program"]
    full, *_ = export(tmp_path / "full", export="torch_export: false")
    assert bytes_of_tables(folder) < share * bytes_of_tables(full)


def bytes_of_tables(folder: Path) -> int:
    """Of all constants with as many rows as a table."""
    graph = script.load(folder / layout.MODEL).inlined_graph
    sizes = {}
    for node in graph.findAllNodes("prim::Constant"):
        value = node.output().toIValue()
        if isinstance(value, torch.Tensor) and value.dim() == 2 and value.shape[0] in (100, 20, 30, 9, 50):
            sizes[node.output().debugName()] = value.numel() * value.element_size()
    return sum(sizes.values())


def test_fp32_changes_nothing():
    graph = torch.fx.symbolic_trace(torch.nn.Linear(2, 1))
    assert quantized(graph, "FP32") is graph


def test_no_ids_at_all_are_fine(tmp_path: Path):
    folder, *_ = export(tmp_path / "export", export='table_data_type: "INT8" torch_export: false')
    config, *_ = job()
    from rec.data.encoder import Encoder

    encoder = Encoder.from_config(config, with_labels=False)
    features = tensors_of(encoder, made_up_rows(encoder, 3).slice(0, 0))
    assert script.load(folder / layout.MODEL)(features)["probs"].shape == (0,)
