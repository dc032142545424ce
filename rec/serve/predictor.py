"""Scores raw rows from an export folder, through the encoder of training and the scripted model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.data.encoder import BadRows
from rec.export import layout
from rec.serve.folder import encoder_of
from rec.serve.requests import Rows, to_batches


class Predictor:
    """An exported model with its encoder.

    Usage:
        predictor = Predictor("model_dir/export")
        predictor.predict([{"item_id": 7}, {"item_id": 9}], shared={"user_id": 1})["probs"]

    Args:
        folder: what `--mode export` wrote.
        verify: compare the files with their checksums first.
        batch_size: rows that go through the model at once.

    Attributes:
        manifest: what the export says about itself.
        schema: the columns that a request has, in their usual types. Requests may have any other that the
            features accept, as in training.
    """

    def __init__(self, folder: str | Path, *, verify: bool = True, batch_size: int = 4096) -> None:
        self.folder, self.batch_size = Path(folder), batch_size
        self.manifest = layout.read_manifest(self.folder, verify=verify)
        if self.manifest["ops_libraries"]:
            raise DataError(
                f"needs the ops of {', '.join(self.manifest['ops_libraries'])}, which serving does not load",
                file=str(self.folder),
            )
        self.encoder = encoder_of(self.folder)
        self.schema = self.encoder.request_schema()

        from rec.export import script

        self._model = script.load(self.folder / layout.MODEL)

    @property
    def outputs(self) -> list[str]:
        """Names of the scores."""
        return [output["name"] for output in self.manifest["outputs"]]

    def predict(self, rows: Rows, *, shared: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Scores of raw rows.

        Args:
            rows: a pyarrow RecordBatch or Table, or a list of dicts.
            shared: columns with one value for all rows, as those of the user of a list of candidates.

        Returns:
            `probs`, `logits`, `y` (with `_<tower>`), [rows] or [rows, classes] float32.

        Raises:
            DataError: a column that is missing, unknown or of the wrong type, or a row that the features
                refuse, with its number.
        """
        parts = []
        start = 0
        for batch in to_batches(rows, self.schema, shared=shared, most=self.batch_size):
            parts.append(self.score(self.encode(batch, first_row=start)))
            start += batch.num_rows
        parts = parts or [self._none()]
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in self.outputs}

    def encode(self, rows: pa.RecordBatch, *, first_row: int = 0) -> dict[str, Tensor]:
        """Encoded features of raw rows; `first_row` is the number of the first one in messages."""
        try:
            arrays = self.encoder.encode(rows)
        except BadRows as error:
            bad = error.first
            raise DataError(str(bad), row=first_row + bad.row, column=bad.column) from error
        return {name: _tensor(array) for name, array in arrays.features.items()}

    def score(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores of encoded features, by name."""
        wanted = {i["name"]: features[i["name"]] for i in self.manifest["inputs"]}
        with torch.inference_mode():
            return self._model(wanted)

    def check(self) -> float:
        """Scores the golden request and returns the largest difference to the golden answer.

        Raises:
            DataError: when it is larger than the export's tolerance: another version of a library, perhaps.
        """
        import pyarrow.parquet as pq

        scores = self.predict(pq.read_table(self.folder / layout.GOLDEN_REQUEST))
        answer = pq.read_table(self.folder / layout.GOLDEN_ANSWER)
        worst = 0.0
        for name, got in scores.items():
            want = np.asarray(answer[name].to_pylist(), dtype=np.float64)
            worst = max(worst, float(np.nanmax(np.abs(got - want), initial=0.0)))
        tolerance = self.manifest["check"]["tolerance"]
        if not worst <= tolerance:
            raise DataError(
                f"the golden request scores {worst:.1e} off its answer (tolerance {tolerance:.0e}); "
                f"it was exported with {self.manifest['versions']}",
                file=str(self.folder),
            )
        return worst

    def _none(self) -> dict[str, Tensor]:
        return {o["name"]: torch.empty(0, *o["shape"][1:]) for o in self.manifest["outputs"]}


def _tensor(array: np.ndarray) -> Tensor:
    # Shared constants of the encoder are read-only, which torch warns of; nothing writes to them here.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
