"""`python -m tools.ridge --data data/mosi`: linear baselines of sequences of vectors, by each modality's last step.

Ridge regression on the training rows, its strength the one of 1, 10, ... 10^6 that errs least on the validation rows.
Each modality alone, all together, and the mean label. The metrics are those of the package.
"""

# N rows, D columns
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from rec.metrics import METRICS
from rec.protos import metric_pb2 as pb
from tools.tables import markdown

STRENGTHS = tuple(10.0**power for power in range(7))
METRICS_OF = {
    "MAE": pb.MeanAbsoluteError(),
    "correlation": pb.PearsonCorrelation(),
    "Acc-2": pb.SignAccuracy(),
    "Acc-2 without 0": pb.SignAccuracy(zeros=pb.EXCLUDED),
    "F1": pb.SignF1(),
    "Acc-7": pb.RoundedAccuracy(),
}
Model = Callable[[np.ndarray], np.ndarray]


def ridge(x_ND: np.ndarray, y_N: np.ndarray, strength: float) -> Model:
    """The linear map and constant w, c that minimise |x w + c - y|^2 + strength |w|^2."""
    x_D, y = x_ND.mean(0), y_N.mean()
    off_ND = x_ND - x_D
    w_D = np.linalg.solve(off_ND.T @ off_ND + strength * np.eye(len(x_D)), off_ND.T @ (y_N - y))
    return lambda z_ND: (z_ND - x_D) @ w_D + y


def last_steps(folder: Path, column: str) -> np.ndarray:
    """The last vector of each row, zeros for a row without any: float64 [N, D]."""
    lists = pq.read_table(folder, columns=[column])[column].combine_chunks()
    width = lists.type.value_type.list_size
    flat = lists.flatten().flatten().to_numpy().reshape(-1, width).astype(np.float64)
    ends, lengths = np.cumsum(np.diff(lists.offsets.to_numpy())), np.diff(lists.offsets.to_numpy())
    out = np.zeros((len(lists), width))
    out[lengths > 0] = flat[ends[lengths > 0] - 1]
    return out


def measured(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """The metrics, in the order of `METRICS_OF`."""
    values = []
    for message in METRICS_OF.values():
        metric = METRICS.build(message)
        metric.update(torch.tensor(scores), torch.tensor(labels))
        values.append(metric.compute())
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.ridge", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of a converter: train, valid and test")
    parser.add_argument(
        "--columns", nargs="+", default=["text", "audio", "video"], help="lists of vectors (%(default)s)"
    )
    parser.add_argument("--label", default="score", help="column of the target (%(default)s)")
    given = parser.parse_args(arguments)
    splits = ("train", "valid", "test")
    labels = {s: pq.read_table(given.data / s, columns=[given.label])[given.label].to_numpy() for s in splits}
    inputs = {name: {s: last_steps(given.data / s, name) for s in splits} for name in given.columns}
    mean = np.full(len(labels["test"]), labels["train"].mean(), np.float64)
    rows: list[list[str | float | int | None]] = [["mean label", "-", *measured(mean, labels["test"])]]
    for names in [*([name] for name in given.columns), given.columns]:
        x = {s: np.concatenate([inputs[name][s] for name in names], 1) for s in splits}
        models = {a: ridge(x["train"], labels["train"], a) for a in STRENGTHS}
        best = min(models, key=lambda a: float(np.abs(models[a](x["valid"]) - labels["valid"]).mean()))
        rows.append([", ".join(names), f"{best:g}", *measured(models[best](x["test"]), labels["test"])])
    print(markdown(["ridge on", "strength", *METRICS_OF], rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
