"""A network, batches and a loader small enough to see through; no files, no fbgemm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from google.protobuf import text_format
from torch import Tensor, nn

from rec.data.batch import Batch
from rec.network import Network
from rec.protos import pipeline_pb2
from rec.tasks import build_tasks
from rec.train import ranks

ROWS, IDS, DIM = 64, 11, 4


class ToyEmbedding(nn.Module):
    """One table, trained by row-wise Adagrad in the backward of the look-up, as the real ones are."""

    backend = "fused"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(IDS, DIM) * 0.1)
        self.momentum = torch.zeros(IDS)
        self.lr = 0.1
        self.lookups = 0

    def set_lr(self, lr: float) -> None:
        self.lr = lr

    def tables_state(self) -> dict[str, Tensor]:
        return {"tables.item": self.weight.detach(), "tables.item.momentum": self.momentum}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        self.lookups += 1
        found = _Lookup.apply(self.weight, features["item.values"], self)
        return {"deep": torch.cat([found, features["price.values"]], dim=1)}


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, ids, owner):
        ctx.save_for_backward(ids)
        ctx.owner = owner
        return weight[ids]

    @staticmethod
    def backward(ctx, grad):
        (ids,) = ctx.saved_tensors
        owner = ctx.owner
        total = torch.zeros(IDS, DIM).index_add_(0, ids, grad)
        if ranks.world() > 1:
            torch.distributed.all_reduce(total)
        owner.momentum += total.square().mean(1)
        owner.weight.data -= owner.lr * total / (owner.momentum.sqrt() + 1e-8)[:, None]
        return None, None, None


class ToyModel(nn.Module):
    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Linear(DIM + 1, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.final = nn.Linear(8, 1)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.dropout(torch.relu(self.norm(self.hidden(groups["deep"]))))
        return {"logits": self.final(x).squeeze(-1)}


def network(seed: int = 0, **kwargs) -> Network:
    torch.manual_seed(seed)
    return Network(ToyEmbedding(), ToyModel(**kwargs))


def data(seed: int = 0, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(ids, price, label, weight), the label leaning on both."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(IDS, (rows,), generator=g)
    price = torch.randn(rows, 1, generator=g)
    label = ((ids % 3 - 1) + price[:, 0] + 0.3 * torch.randn(rows, generator=g) > 0).float()
    weight = torch.rand(rows, generator=g) + 0.5
    return ids, price, label, weight


def batch_of(rows: Tensor, source, position=None) -> Batch:
    ids, price, label, weight = source
    return Batch(
        features={"item.values": ids[rows], "price.values": price[rows]},
        labels={"label": label[rows]},
        weights={"weight": weight[rows]},
        size=len(rows),
        position=position or {},
    )


@dataclass
class ToyLoader:
    """Shuffles by epoch, and goes on from a position like the real one."""

    batch_size: int = 10
    rows: int = ROWS
    shuffle: bool = True
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        self.source = data(self.seed, self.rows)

    @property
    def steps(self) -> int:
        return -(-self.rows // (self.batch_size * self.world))

    def epoch(self, epoch: int, position=None):
        g = torch.Generator().manual_seed(1000 + epoch)
        order = torch.randperm(self.rows, generator=g) if self.shuffle else torch.arange(self.rows)
        order = order[self.rank :: self.world]
        first = position["batch"] if position else 0
        for i in range(first, self.steps):
            rows = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield batch_of(rows, self.source, {"epoch": epoch, "batch": i + 1})


BASE = """
model_config {
  deepfm { deep { hidden_units: 8 } }
  losses { binary_cross_entropy {} }
  metrics { auc {} }
  train_metrics { auc { thresholds: 50 } decay_rate: 0.5 decay_step: 3 }
}
data_config { label_fields: "label" sample_weight_fields: "weight" }
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.05 } }
  dense_optimizer { adam_optimizer { lr: 0.01 } }
  num_epochs: 2
  use_tensorboard: false
  log_step_count_steps: 2
}
"""


def config(extra: str = "", *, drop: str = "") -> pipeline_pb2.EasyRecConfig:
    """The base config with text merged over it; `drop` names a field of train_config to clear first."""
    msg = pipeline_pb2.EasyRecConfig()
    text_format.Merge(BASE, msg)
    for name in drop.split():
        msg.train_config.ClearField(name)
    text_format.Merge(extra, msg)
    return msg


def tasks(msg=None):
    return build_tasks(msg or config())
