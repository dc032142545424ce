"""Golden request and answer: what a server checks itself with before it answers anyone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rec.export import layout

ROWS = 16


def write(folder: Path, rows: pa.RecordBatch, features: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
    """The raw rows, their encoded features, and the scores of the model as it was written.

    The features go to JSON, for runtimes that have neither the encoder nor parquet.
    """
    pq.write_table(pa.Table.from_batches([rows]), folder / layout.GOLDEN_REQUEST)
    pq.write_table(pa.table(scores_to_columns(scores)), folder / layout.GOLDEN_ANSWER)
    tensors = {
        "features": {k: _plain(v) for k, v in features.items()},
        "scores": {k: _plain(v) for k, v in scores.items()},
    }
    (folder / layout.GOLDEN_TENSORS).write_text(json.dumps(tensors))


def scores_to_columns(scores: Mapping[str, Tensor]) -> dict[str, pa.Array]:
    """Scores as Arrow columns: floats, or lists of them with several classes or vectors."""
    return {name: to_column(tensor.numpy()) for name, tensor in scores.items()}


def to_column(values: np.ndarray) -> pa.Array:
    """[B] as floats, [B, C] as fixed-size lists, [B, K, D] as lists of lists."""
    column = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def _plain(tensor: Tensor) -> dict[str, Any]:
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "values": tensor.reshape(-1).tolist(),
    }


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features and scores of the golden rows."""
    found = json.loads((folder / layout.GOLDEN_TENSORS).read_text())
    features, scores = (
        {
            name: torch.tensor(t["values"], dtype=getattr(torch, t["dtype"])).reshape(t["shape"])
            for name, t in found[part].items()
        }
        for part in ("features", "scores")
    )
    return features, scores
