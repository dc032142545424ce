"""One of two ranks of test_merge.py: adds its half of the rows and prints the merged values as JSON."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
from google.protobuf import text_format

from rec.protos import pipeline_pb2
from rec.tasks import Evaluation, build_tasks

CONFIG = """
data_config { label_fields: "y" sample_weight_fields: "w" }
model_config {
  deepfm {}
  losses { binary_cross_entropy {} }
  metrics { auc {} } metrics { auc { thresholds: 100 } } metrics { logloss {} } metrics { calibration {} }
  metrics { grouped_auc { grouping_key: "u" } } metrics { normalized_entropy {} }
  metrics { prediction_stats { prediction: "logits" low: -4 high: 4 } }
}
"""


def batches(rows: int = 601) -> list[tuple[torch.Tensor, SimpleNamespace]]:
    """Logits and batches; the last one is short."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, generator=g)
    labels = (torch.rand(rows, generator=g) < torch.sigmoid(logits)).float()
    weights, users = torch.rand(rows, generator=g), torch.randint(0, 9, (rows,), generator=g)
    parts = zip(*(x.split(100) for x in (logits, labels, weights, users)), strict=True)
    return [
        (x, SimpleNamespace(labels={"y": y}, weights={"w": w}, keys={"u": u}, size=len(x), filler=False))
        for x, y, w, u in parts
    ]


def evaluate(rank: int, world: int) -> dict[str, float]:
    config = text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig())
    evaluation = Evaluation(build_tasks(config))
    for logits, batch in batches()[rank::world]:
        evaluation.update({"logits": logits}, batch)
    return evaluation.compute()


def main() -> None:
    rank, store, idle = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "idle"
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    # "idle": rank 1 has no rows at all
    values = evaluate(0, 1) if idle and rank == 0 else evaluate(10, 11) if idle else evaluate(rank, 2)
    print(json.dumps(values))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
