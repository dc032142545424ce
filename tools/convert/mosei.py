"""CMU-MOSI and CMU-MOSEI as they are passed around (MMSA, MulT) to parquet: text, audio, video as lists of vectors.

A file is a dict {train, valid, test: {text [N, L, D], audio, vision or video, labels or regression_labels, id, ...}},
pickled or as .npz with names "train/text". Pickles are read by `tools.convert.arrays`, which runs nothing.

Lengths: `<modality>_lengths` where the file has them, of text also `text_bert`'s mask. Where it does not, vectors of
zeros at either end of a rectangle are padding and are cut off, and those inside are steps: a silence at the very end is
lost.
Numbers that are not finite (COVAREP's -inf) become 0 and are counted in info.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.arrays import read_arrays
from tools.convert.history import lists
from tools.convert.output import SPLITS, Output, strings

MODALITIES = {"text": ("text",), "audio": ("audio",), "video": ("vision", "video")}
LABELS = ("regression_labels", "labels", "label")


def convert(path: str | Path, output: str | Path) -> dict:
    """Convert a .pkl or .npz file; returns the info."""
    found = read_arrays(path)
    info: dict[str, Any] = {"dataset": "mosei", "lengths": {}, "not_finite": {}}
    with Output(output, row_group_rows=1024) as out:
        for split in SPLITS:
            if not isinstance(found.get(split), dict):
                raise DataError(f'has no split "{split}"; it has {", ".join(map(str, found))}', file=str(path))
            out.write(split, _table(found[split], str(path), info))
        widths = {name: table_width(out_field) for name, out_field in info.pop("fields").items()}
        out.info = {**info, "widths": widths}
    return {"rows": out.rows, **out.info}


def table_width(kind: pa.DataType) -> int:
    """Width of a column of lists of vectors."""
    return kind.value_type.list_size


def vectors(x_NLD: np.ndarray, first: np.ndarray, end: np.ndarray) -> pa.Array:
    """Steps [first, end) of each row as lists of vectors of float32.

    Args:
        x_NLD: [N, L, D].
        first: [N].
        end: [N].
    """
    at = np.arange(x_NLD.shape[1])
    inside = (at >= first[:, None]) & (at < end[:, None])
    steps = x_NLD[inside].astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(inside.sum(1))])
    return lists(offsets, pa.FixedSizeListArray.from_arrays(pa.array(steps.reshape(-1)), x_NLD.shape[2]))


def _table(split: dict[str, Any], file: str, info: dict[str, Any]) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name, fields in MODALITIES.items():
        field = next((f for f in fields if f in split), None)
        if field is None:
            continue
        x_NLD = np.asarray(split[field])
        if x_NLD.ndim != 3 or x_NLD.dtype.kind != "f":
            raise DataError(
                f"is {x_NLD.dtype} {list(x_NLD.shape)}, expected numbers [rows, steps, width]", file=file, column=field
            )
        finite = np.isfinite(x_NLD)
        x_NLD = np.where(finite, x_NLD, 0)
        info["not_finite"][name] = info["not_finite"].get(name, 0) + int((~finite).sum())
        first, end, told = _lengths(split, field, x_NLD)
        info["lengths"][name] = "of the file" if told else "zeros at the ends cut off"
        columns[name] = vectors(x_NLD, first, end)
        info.setdefault("fields", {})[name] = columns[name].type
    label = next((f for f in LABELS if f in split), None)
    if label is None or not columns:
        raise DataError(f"has no {'labels' if columns else 'modality'}; it has {', '.join(split)}", file=file)
    score = np.asarray(split[label], np.float32)
    rows = len(next(iter(columns.values())))
    # MulT's labels are [N, 1, 1]; MOSEI's may have emotions beside the sentiment, which is the first.
    columns["score"] = pa.array(score.reshape(len(score), -1)[:, 0])
    columns["id"] = strings(_ids(split.get("id"), rows))
    if any(len(column) != rows for column in columns.values()):
        raise DataError(f"columns of different length: { {n: len(c) for n, c in columns.items()} }", file=file)
    return pa.table(columns)


def _lengths(split: dict[str, Any], field: str, x_NLD: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """First step and the one behind the last of each row, and whether the file tells."""
    start = np.zeros(len(x_NLD), np.int64)
    if f"{field}_lengths" in split:
        return start, np.asarray(split[f"{field}_lengths"], np.int64).reshape(-1), True
    if field == "text" and "text_bert" in split:
        # [N, 3, L]: tokens, mask, segments.
        return start, np.asarray(split["text_bert"])[:, 1].sum(1).astype(np.int64), True
    full = np.abs(x_NLD).max(2) > 0
    some = full.any(1)
    first = np.where(some, full.argmax(1), 0)
    end = np.where(some, x_NLD.shape[1] - full[:, ::-1].argmax(1), 0)
    return first, end, False


def _ids(found: Any, rows: int) -> list[str]:
    """Names of rows; MulT's are [video, begin, end]."""
    if found is None:
        return [str(row) for row in range(rows)]
    return ["_".join(_text(part) for part in np.atleast_1d(np.asarray(one, dtype=object)).reshape(-1)) for one in found]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
