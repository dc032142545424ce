"""DIN and BST elsewhere: DeepCTR-Torch's DIN, and a BST of PyTorch's own layers on nn.Embedding.

`python -m benchmarks.sequence_peers <name> <items>` prints processor seconds per million rows, after warm-up. The rows
and the widths are those of `benchmarks.sequences`, whose histories they pad: 50 steps cost as much as fewer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.sequences import AGES, ATTENTION, BATCH, CITIES, FINAL, HEADS, LENGTH, WIDTH, columns

WARM_UP, STEPS = 2, 4


def padded(items: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns, and steps [N, 50]."""
    values, steps, lengths = columns(items, (WARM_UP + STEPS) * BATCH, full=True)
    return values, steps.reshape(len(lengths), LENGTH)


def deepctr(items: int, *, l2: bool) -> float:
    """DeepCTR-Torch as its examples use it: model.compile("adam"), model.fit."""
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat, get_feature_names
    from deepctr_torch.models import DIN

    item = SparseFeat("item_id", items + 1, embedding_dim=WIDTH)
    history = SparseFeat("hist_item_id", items + 1, embedding_dim=WIDTH, embedding_name="item_id")
    features = [
        SparseFeat("age_id", AGES, embedding_dim=WIDTH),
        SparseFeat("city_id", CITIES, embedding_dim=WIDTH),
        item,
        VarLenSparseFeat(history, maxlen=LENGTH, length_name="length"),
    ]
    plain = {} if l2 else {"l2_reg_embedding": 0.0}
    model = DIN(features, ["item_id"], dnn_hidden_units=FINAL, att_hidden_size=ATTENTION, device="cpu", **plain)
    model.compile("adam", "binary_crossentropy")
    values, steps = padded(items)
    inputs = {**values, "hist_item_id": steps, "length": np.full(len(steps), LENGTH)}
    names = get_feature_names(features)

    def fit(first: int, count: int) -> None:
        chosen = slice(first * BATCH, (first + count) * BATCH)
        x = {name: inputs[name][chosen] for name in names}
        labels = values["label"][chosen].astype(np.float32)
        model.fit(x, labels, batch_size=BATCH, epochs=1, verbose=0, shuffle=False)

    fit(0, WARM_UP)
    start = time.process_time()
    fit(WARM_UP, STEPS)
    return (time.process_time() - start) / (STEPS * BATCH) * 1e6


class PlainBST(nn.Module):
    """One nn.TransformerEncoderLayer over steps and target, a learned position beside each, the mean into an MLP."""

    def __init__(self, items: int, *, sparse: bool) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, WIDTH, padding_idx=0, sparse=sparse)
        self.ages, self.cities = nn.Embedding(AGES, WIDTH), nn.Embedding(CITIES, WIDTH)
        self.positions = nn.Parameter(0.01 * torch.randn(LENGTH + 1, WIDTH))
        token = 2 * WIDTH
        self.layer = nn.TransformerEncoderLayer(
            token, HEADS, token, dropout=0.0, activation=nn.functional.leaky_relu, batch_first=True
        )
        pairs = itertools.pairwise([token + 2 * WIDTH, *FINAL])
        layers = [module for a, b in pairs for module in (nn.Linear(a, b), nn.ReLU())]
        self.mlp = nn.Sequential(*layers, nn.Linear(FINAL[-1], 1))

    def forward(self, item: Tensor, steps: Tensor, age: Tensor, city: Tensor) -> Tensor:
        """Logits [B]; id 0 is padding."""
        ids = torch.cat([steps, item.unsqueeze(1)], dim=1)
        tokens = torch.cat([self.items(ids), self.positions.expand(len(ids), -1, -1)], dim=2)
        valid = (ids > 0).unsqueeze(2)
        tokens = self.layer(tokens, src_key_padding_mask=ids == 0) * valid
        pooled = tokens.sum(1) / valid.sum(1)
        return self.mlp(torch.cat([pooled, self.ages(age), self.cities(city)], dim=1)).squeeze(1)


def plain_bst(items: int, *, sparse: bool) -> float:
    """Dense: Adam over everything. Sparse: SparseAdam on the items' rows of the batch, Adam on the rest."""
    model = PlainBST(items, sparse=sparse)
    table = [model.items.weight]
    rest = [parameter for parameter in model.parameters() if parameter is not model.items.weight]
    if sparse:
        optimizers = [torch.optim.SparseAdam(table, lr=0.001), torch.optim.Adam(rest, lr=0.001)]
    else:
        optimizers = [torch.optim.Adam([*table, *rest], lr=0.001)]
    values, steps = padded(items)
    inputs = [torch.from_numpy(x) for x in (values["item_id"], steps, values["age_id"], values["city_id"])]
    labels = torch.from_numpy(values["label"].astype(np.float32))
    start = 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            start = time.process_time()
        chosen = slice(step * BATCH, (step + 1) * BATCH)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        logits = model(*(x[chosen] for x in inputs))
        nn.functional.binary_cross_entropy_with_logits(logits, labels[chosen]).backward()
        for optimizer in optimizers:
            optimizer.step()
    return (time.process_time() - start) / (STEPS * BATCH) * 1e6


PEERS: dict[str, Callable[[int], float]] = {
    "DeepCTR-Torch DIN": lambda items: deepctr(items, l2=True),
    "DeepCTR-Torch DIN without L2": lambda items: deepctr(items, l2=False),
    "plain PyTorch BST, dense Adam": lambda items: plain_bst(items, sparse=False),
    "plain PyTorch BST, sparse Adam": lambda items: plain_bst(items, sparse=True),
}


def main() -> int:
    """Time one peer and print its figure as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequence_peers")
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("items", type=int)
    given = parser.parse_args()
    print(json.dumps({"cpu_s_per_million": round(PEERS[given.peer](given.items), 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
