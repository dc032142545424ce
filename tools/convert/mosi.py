"""CMU-MOSI by utterance (mosi_utterance.npz) to parquet: each row an utterance with those of its video before it.

The file has one vector an utterance and modality (of bc-LSTM, Poria et al., ACL 2017). Here a row's text, audio and
video are the vectors of its video's utterances up to and with its own, the last: what is known when it is said. What
comes after, which a bidirectional context would see, is left out, and so are all labels. `sequence_length: 1` with
`sequence_keep: LAST` is the utterance alone.

Vectors are standardised by mean and spread of the training rows. The split is bc-LSTM's, by speaker: the vectors were
trained with the labels of its training videos and leak on any other. They fit those rows better than new ones for the
same reason, so the videos held out for validation, drawn from them, look easier than the test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.arrays import read_arrays
from tools.convert.history import lists
from tools.convert.output import Output, strings

MODALITIES = ("text", "audio", "video")


def convert(path: str | Path, output: str | Path, *, valid_share: float = 0.2, seed: int = 0) -> dict:
    """Convert mosi_utterance.npz, or the folder that it is in.

    Args:
        path: see above.
        output: folder of the parquet files.
        valid_share: of the training videos, held out for validation.
        seed: of which ones.
    """
    path = Path(path)
    data = read_arrays(path / "mosi_utterance.npz" if path.is_dir() else path)
    missing = [n for n in (*MODALITIES, "video_id", "clip", "label", "split_bclstm", "ids") if n not in data]
    if missing:
        raise DataError(f'has no "{missing[0]}"; it has {", ".join(data)}', file=str(path))
    order = np.lexsort((data["clip"], data["video_id"]))
    data = {name: values[order] for name, values in data.items() if len(values) == len(order)}
    train = data["split_bclstm"] == "train"
    videos = np.unique(data["video_id"][train])
    held = np.random.default_rng(seed).permutation(videos)[: round(valid_share * len(videos))]
    split = np.where(train, np.where(np.isin(data["video_id"], held), "valid", "train"), "test")
    offsets, places = _context(data["video_id"])
    for name in MODALITIES:
        fitted = data[name][split == "train"]
        spread = fitted.std(0)
        data[name] = ((data[name] - fitted.mean(0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    columns = {name: _vectors(data[name][places], offsets) for name in MODALITIES}
    table = pa.table(columns | {"score": pa.array(data["label"]), "id": strings(data["ids"])})
    with Output(output, row_group_rows=512) as out:
        for name in np.unique(split):
            out.write(str(name), table.take(np.flatnonzero(split == name)))
        out.info = {
            "dataset": "mosi",
            "split": "bclstm",
            "videos": {str(s): len(np.unique(data["video_id"][split == s])) for s in np.unique(split)},
            "widths": {name: data[name].shape[1] for name in MODALITIES},
            "longest": int(np.diff(offsets).max()),
            "held_out": sorted(map(str, held)),
        }
    return {"rows": out.rows, **out.info}


def _context(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows sorted by video: where each row's list begins, [rows + 1], and the rows that are in the lists."""
    rows = np.arange(len(video))
    begins = np.concatenate([[True], video[1:] != video[:-1]])
    first = np.maximum.accumulate(np.where(begins, rows, 0))
    lengths = rows - first + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, np.arange(offsets[-1]) - np.repeat(offsets[:-1] - first, lengths)


def _vectors(steps: np.ndarray, offsets: np.ndarray) -> pa.Array:
    return lists(offsets, pa.FixedSizeListArray.from_arrays(pa.array(steps.reshape(-1)), steps.shape[1]))
