"""The parts of a yardstick by themselves, with nothing around them: what no framework on these kernels can beat.

`python -m benchmarks.bare <yardstick>` prints processor seconds per million rows of each part: forward and backward of
the MLPs and of the dot interaction on random inputs, the dense Adam, and the table look-up with its fused Adagrad on
ids of the benchmark's distribution.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.shapes import BATCH, FIELDS, VOCABULARIES, WIDTH, YARDSTICKS, Yardstick
from tools.generate.draws import zipf_ids

STEPS = 30


def clock(step: Callable[[], None], *, warm_up: int = 5) -> float:
    """Median processor seconds of a step, per million rows."""
    times = []
    for _ in range(warm_up + STEPS):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return statistics.median(times[warm_up:]) / BATCH * 1e6


def mlp(widths: tuple[int, ...], *, input_gradient: bool) -> float:
    """Linear and ReLU layers: forward, backward, Adam."""
    layers: list[nn.Module] = []
    for left, right in itertools.pairwise(widths):
        layers += [nn.Linear(left, right), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, fused=True)
    x = torch.randn(BATCH, widths[0], requires_grad=input_gradient)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(x).sum().backward()
        optimizer.step()

    return clock(step)


def dot_interaction() -> float:
    """All pairs of 27 vectors by one batched product: forward and backward."""
    x = torch.randn(BATCH, FIELDS + 1, WIDTH, requires_grad=True)
    rows, columns = torch.tril_indices(FIELDS + 1, FIELDS + 1, offset=-1)
    gradient = torch.randn(BATCH, len(rows))

    def step() -> None:
        pairs: Tensor = torch.bmm(x, x.transpose(1, 2))[:, rows, columns]
        pairs.backward(gradient)

    return clock(step)


def look_up(width: int) -> float:
    """26 tables: look-up, and Adagrad inside the backward pass."""
    import fbgemm_gpu  # noqa: F401
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    specs = [(rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in VOCABULARIES]
    tables = SplitTableBatchedEmbeddingBagsCodegen(specs, optimizer=EmbOptimType.EXACT_ADAGRAD, learning_rate=0.01)
    generator = np.random.default_rng(0)
    batches = []
    for _ in range(10):
        ids = [zipf_ids(generator, size=BATCH, vocabulary=rows, exponent=1.1) for rows in VOCABULARIES]
        batches.append(torch.from_numpy(np.concatenate(ids)))
    offsets = torch.arange(FIELDS * BATCH + 1)
    gradient = torch.randn(BATCH, FIELDS * width)
    turn = iter(range(10**9))

    def step() -> None:
        tables(batches[next(turn) % 10], offsets).backward(gradient)

    return clock(step)


def parts(yardstick: Yardstick) -> dict[str, float]:
    """Processor seconds per million rows of each part."""
    found = {}
    for widths in yardstick.mlps:
        found[f"MLP {'-'.join(map(str, widths))}"] = mlp(widths, input_gradient=widths[0] > 13)
    if yardstick.dot:
        found["dot interaction"] = dot_interaction()
    for width in yardstick.table_widths:
        found[f"look-up and update, width {width}"] = look_up(width)
    return found


if __name__ == "__main__":
    (chosen,) = (one for one in YARDSTICKS if one.name == sys.argv[1])
    print(json.dumps({name: round(value, 2) for name, value in parts(chosen).items()}))
