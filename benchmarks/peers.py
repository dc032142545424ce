"""DeepFM and DCN v2 elsewhere: DeepCTR-Torch, and a plain PyTorch model on nn.EmbeddingBag.

`python -m benchmarks.peers <name> <kind> --data <folder>` prints processor seconds per million rows, after warm-up. The
models have the widths of the yardstick deepfm (MLP 512-256-128, tables of width 16 and a linear part), or two cross
layers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from benchmarks.shapes import BATCH, DENSE, FIELDS, LARGE, VOCABULARIES, WIDTH

WARM_UP, STEPS = 3, 10
HIDDEN = (512, 256, 128)


def rows_of(folder: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense columns float32 [N, 13], ids int64 [N, 26] and labels float32 [N] of the first rows."""
    table = pq.read_table(folder).slice(0, count)
    first = "int_0" if "int_0" in table.column_names else "dense_0"
    dense = np.stack([table[f"{first[:-1]}{i}"].to_numpy() for i in range(DENSE)], 1)
    ids = np.stack([table[f"cat_{i}"].to_numpy() for i in range(FIELDS)], 1)
    return dense.astype(np.float32), ids.astype(np.int64), table["label"].to_numpy().astype(np.float32)


def deepctr(kind: str, vocabularies: Sequence[int], data: str, *, l2: bool) -> dict[str, float]:
    """DeepCTR-Torch as its examples use it: model.compile("adam"), model.fit."""
    from deepctr_torch.inputs import DenseFeat, SparseFeat, get_feature_names
    from deepctr_torch.models import DCN, DeepFM

    sparse = [SparseFeat(f"cat_{i}", rows, embedding_dim=WIDTH) for i, rows in enumerate(vocabularies)]
    columns = [*sparse, *(DenseFeat(f"int_{i}", 1) for i in range(DENSE))]
    plain = {} if l2 else {"l2_reg_linear": 0.0, "l2_reg_embedding": 0.0}
    if kind == "deepfm":
        model = DeepFM(columns, columns, dnn_hidden_units=HIDDEN, device="cpu", **plain)
    else:
        model = DCN(
            columns,
            columns,
            cross_num=2,
            cross_parameterization="matrix",
            dnn_hidden_units=HIDDEN,
            device="cpu",
            **plain,
        )
    model.compile("adam", "binary_crossentropy")
    dense, ids, labels = rows_of(data, (WARM_UP + STEPS) * BATCH)
    values = {f"int_{i}": dense[:, i] for i in range(DENSE)} | {f"cat_{i}": ids[:, i] for i in range(FIELDS)}
    names = get_feature_names(columns)

    def fit(first: int, count: int) -> None:
        chosen = slice(first * BATCH, (first + count) * BATCH)
        inputs = {name: values[name][chosen] for name in names}
        model.fit(inputs, labels[chosen], batch_size=BATCH, epochs=1, verbose=0, shuffle=False)

    fit(0, WARM_UP)
    start = time.process_time()
    fit(WARM_UP, STEPS)
    return {"cpu_s_per_million": (time.process_time() - start) / (STEPS * BATCH) * 1e6}


class Plain(nn.Module):
    """DeepFM or a cross network in the fewest lines of PyTorch."""

    def __init__(self, kind: str, vocabularies: Sequence[int], *, sparse: bool) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, WIDTH, mode="sum", sparse=sparse) for rows in vocabularies)
        self.linear = nn.ModuleList(nn.EmbeddingBag(rows, 1, mode="sum", sparse=sparse) for rows in vocabularies)
        for table in [*self.tables, *self.linear]:
            nn.init.normal_(table.weight, std=0.01)
        width = DENSE + FIELDS * WIDTH
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(2 if kind == "dcn_v2" else 0))
        layers: list[nn.Module] = []
        for left, right in zip((width, *HIDDEN), HIDDEN, strict=False):
            layers += [nn.Linear(left, right), nn.ReLU()]
        self.deep = nn.Sequential(*layers)
        self.head = nn.Linear(HIDDEN[-1] + (width if self.cross else 0), 1)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        """Logits [B]."""
        fields = torch.stack([table(ids[:, i : i + 1]) for i, table in enumerate(self.tables)], 1)
        linear = sum(table(ids[:, i : i + 1]) for i, table in enumerate(self.linear)).squeeze(1)
        x_0 = torch.cat([dense, fields.flatten(1)], 1)
        deep = self.deep(x_0)
        if self.cross:
            x = x_0
            for layer in self.cross:
                x = x_0 * layer(x) + x
            return self.head(torch.cat([deep, x], 1)).squeeze(1) + linear
        pairs = 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1)
        return self.head(deep).squeeze(1) + linear + pairs


def plain(kind: str, vocabularies: Sequence[int], data: str, *, sparse: bool) -> dict[str, float]:
    """Dense: Adam over everything. Sparse: Adagrad on the tables' sparse gradients, Adam on the rest."""
    model = Plain(kind, vocabularies, sparse=sparse)
    tables = [*model.tables.parameters(), *model.linear.parameters()]
    known = {id(parameter) for parameter in tables}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    if sparse:
        optimizers = [torch.optim.Adagrad(tables, lr=0.01), torch.optim.Adam(rest, lr=0.001)]
    else:
        optimizers = [torch.optim.Adam([*tables, *rest], lr=0.001)]
    dense, ids, labels = (torch.from_numpy(part) for part in rows_of(data, (WARM_UP + STEPS) * BATCH))
    start = 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            start = time.process_time()
        chosen = slice(step * BATCH, (step + 1) * BATCH)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        logits = model(dense[chosen], ids[chosen])
        nn.functional.binary_cross_entropy_with_logits(logits, labels[chosen]).backward()
        for optimizer in optimizers:
            optimizer.step()
    return {"cpu_s_per_million": (time.process_time() - start) / (STEPS * BATCH) * 1e6}


PEERS: dict[str, Callable[[str, Sequence[int], str], dict[str, float]]] = {
    "DeepCTR-Torch": lambda kind, sizes, data: deepctr(kind, sizes, data, l2=True),
    "DeepCTR-Torch without L2": lambda kind, sizes, data: deepctr(kind, sizes, data, l2=False),
    "plain PyTorch, dense Adam": lambda kind, sizes, data: plain(kind, sizes, data, sparse=False),
    "plain PyTorch, sparse Adagrad": lambda kind, sizes, data: plain(kind, sizes, data, sparse=True),
}


def main() -> int:
    """Time one peer and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("kind", choices=["deepfm", "dcn_v2"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--large", action="store_true", help="vocabularies of 6 M rows")
    given = parser.parse_args()
    found = PEERS[given.peer](given.kind, LARGE if given.large else VOCABULARIES, given.data)
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
