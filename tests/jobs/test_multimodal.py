"""The command line on sequences of vectors: configs/tiny/msa.config trained, exported, evaluated and served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.main import main
from rec.serve import Predictor
from tests.tiny_data import overrides, write_tiny

WEIGHTS = ("weight_text", "weight_audio")


def run(folder: Path, *args: str) -> int:
    sets = [a for text in overrides(folder) for a in ("--set", text)]
    return main(["--pipeline_config", "configs/tiny/msa.config", "-q", *sets, *args])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), train=1000, evaluation=200)
    assert run(folder, "--set", "export_config {}") == 0
    return folder


def test_every_evaluation_reports_the_weights(trained: Path):
    entry = json.loads((trained / "model/metrics.jsonl").read_text().splitlines()[-1])
    assert {f"{w}_{what}" for w in WEIGHTS for what in ("mean", "std", "median")} <= set(entry["metrics"])
    # 1 in all but the rows that lack both, one in 70.
    assert 0.9 < sum(entry["metrics"][f"{w}_mean"] for w in WEIGHTS) <= 1


def test_predict_serves_score_and_weights_alike_from_checkpoint_and_export(trained: Path, tmp_path: Path):
    assert run(trained, "--mode", "predict", "--output", str(tmp_path / "a"), "--checkpoint", "latest") == 0
    export = str(trained / "model/export")
    assert run(trained, "--mode", "predict", "--output", str(tmp_path / "b"), "--export_dir", export) == 0
    a, b = pq.read_table(tmp_path / "a"), pq.read_table(tmp_path / "b")
    for name in ("y", *WEIGHTS):
        # Attention by our kernels in the one, padded in the other: float32's rounding over a few layers.
        assert a[name].to_numpy() == pytest.approx(b[name].to_numpy(), abs=1e-5)


def test_the_predictor_takes_rows_of_any_length_and_rows_that_lack_something(trained: Path):
    predictor = Predictor(trained / "model/export")
    assert predictor.schema.field("text").type == pa.list_(pa.list_(pa.float32(), 4))
    assert predictor.check() <= 1e-5
    row = {"user_id": 1, "item_id": 2, "cate_id": 3, "city": "Oslo", "tags": [1], "age": 30.0}
    text, audio = np.ones((3, 4)).tolist(), np.ones((5, 3)).tolist()
    given = [(text, audio), (text, []), (None, audio), ([], [])]
    scores = predictor.predict([row | {"text": t, "audio": a} for t, a in given])
    weights = np.stack([scores[name] for name in WEIGHTS], 1)
    assert weights[1:].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert weights[0].sum() == pytest.approx(1)
    assert np.isfinite(scores["y"]).all()
    assert len(set(scores["y"].tolist())) == 4
