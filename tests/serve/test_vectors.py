"""Sequences of dense vectors through one export: nested lists beside ids of a memory-mapped file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rec.export.samples import made_up_rows
from rec.serve import Predictor
from tests.export.small_job import BINARY, export

FEATURES = """
feature_configs {{ sequence_raw_feature {{
  feature_name: "text" expression: "item:text" value_dim: 3 sequence_length: 4 }} }}
feature_configs {{ sequence_vector_feature {{ feature_name: "frames" expression: "item:frames" sequence_length: 5
  vectors_file: "{0}/v.npy" ids_file: "{0}/ids.txt" unknown: ZEROS }} }}
"""
GROUP = """
  feature_groups { group_name: "deep" group_type: DEEP
    sequence_groups { group_name: "t" feature_names: "text" }
    sequence_groups { group_name: "f" feature_names: "frames" }
    sequence_encoders { pooling_encoder { input: "t" pooling_type: "sum" } }
    sequence_encoders { pooling_encoder { input: "f" pooling_type: "last" } } }
"""
MODEL = (
    'multi_tower { towers { input: "deep" mlp { hidden_units: 8 } } final { hidden_units: 4 activation: "nn.SiLU" } }'
    + BINARY
)


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    np.save(tmp_path / "v.npy", np.arange(8, dtype=np.float16).reshape(4, 2))
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    made, _, _ = export(tmp_path / "made", features=FEATURES.format(tmp_path), group=GROUP, model=MODEL)
    # What is served is in the folder: the files of the training are gone.
    (tmp_path / "v.npy").unlink()
    (tmp_path / "ids.txt").unlink()
    return Predictor(made)


def test_the_export_is_whole_and_scores_rows_of_different_lengths(predictor: Predictor):
    rows = [
        {"text": [[1.0, 2.0, 3.0]], "frames": ["b", "d"]},
        {"text": [], "frames": []},
        {"text": [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], "frames": ["d"]},
        {"text": [[1.0, 2.0, 3.0]], "frames": ["a", "unknown"]},
    ]
    scores = predictor.predict(rows)["probs"]
    # A step of zeros adds nothing to a sum, and both rows have the last frame "d".
    assert scores[0] == pytest.approx(scores[2], abs=1e-7)
    assert len({round(float(s), 6) for s in scores}) == 3
    nested = pa.table({"text": pa.array([r["text"] for r in rows], pa.list_(pa.list_(pa.float64(), 3))),
                       "frames": pa.array([r["frames"] for r in rows])})  # fmt: skip
    assert np.array_equal(predictor.predict(nested)["probs"], scores)
    assert predictor.check() == 0.0


def test_rows_are_made_up_with_vectors_in_them(predictor: Predictor):
    rows = made_up_rows(predictor.encoder, 50)
    assert rows.schema.field("text").type == pa.list_(pa.list_(pa.float32(), 3))
    assert rows.column("text").null_count == 0
    assert len(rows.column("text").flatten()) > 20
