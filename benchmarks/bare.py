"""The parts of a yardstick by themselves, with nothing around them: what no framework on these kernels can beat.

`python -m benchmarks.bare <yardstick>` prints processor seconds per million rows of each part: forward and backward of
the MLPs, of the dot interaction and of the similarities on random inputs, the dense Adam, and the table look-up with
its fused Adagrad on ids of the benchmark's distribution. MLPs over histories see their steps only, no padding.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.shapes import FIELDS, MEAN_STEPS, WIDTH, YARDSTICKS, Yardstick
from tools.generate.draws import zipf_ids

STEPS = 30


def clock(step: Callable[[], None], batch: int, *, warm_up: int = 5) -> float:
    """Median processor seconds of a step, per million rows."""
    times = []
    for _ in range(warm_up + STEPS):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return statistics.median(times[warm_up:]) / batch * 1e6


def mlp(widths: tuple[int, ...], batch: int, *, input_gradient: bool, steps: float = 1) -> float:
    """Linear and ReLU layers: forward, backward, Adam."""
    layers: list[nn.Module] = []
    for left, right in itertools.pairwise(widths):
        layers += [nn.Linear(left, right), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, fused=True)
    x = torch.randn(int(batch * steps), widths[0], requires_grad=input_gradient)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(x).sum().backward()
        optimizer.step()

    return clock(step, batch)


def dot_interaction(batch: int) -> float:
    """All pairs of 27 vectors by one batched product: forward and backward."""
    x = torch.randn(batch, FIELDS + 1, WIDTH, requires_grad=True)
    rows, columns = torch.tril_indices(FIELDS + 1, FIELDS + 1, offset=-1)
    gradient = torch.randn(batch, len(rows))

    def step() -> None:
        pairs: Tensor = torch.bmm(x, x.transpose(1, 2))[:, rows, columns]
        pairs.backward(gradient)

    return clock(step, batch)


def similarity(width: int, batch: int) -> float:
    """Softmax over the items of the batch: forward and backward."""
    users, items = (torch.randn(batch, width, requires_grad=True) for _ in range(2))
    own = torch.arange(batch)

    def step() -> None:
        F.cross_entropy(users @ items.t(), own).backward()

    return clock(step, batch)


def look_up(vocabularies: Sequence[int], width: int, yardstick: Yardstick, *, steps: float = 1) -> float:
    """Tables with `steps` ids a row each: look-up, and Adagrad inside the backward pass."""
    import fbgemm_gpu  # noqa: F401
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    specs = [(rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in vocabularies]
    tables = SplitTableBatchedEmbeddingBagsCodegen(specs, optimizer=EmbOptimType.EXACT_ADAGRAD, learning_rate=0.01)
    generator = np.random.default_rng(0)
    count = int(yardstick.batch * steps)

    def ids(rows: int) -> np.ndarray:
        if yardstick.data == "seq_like":
            return (generator.random(count) ** 2 * rows).astype(np.int64)
        return zipf_ids(generator, size=count, vocabulary=rows, exponent=1.1)

    batches = [torch.from_numpy(np.concatenate([ids(rows) for rows in vocabularies])) for _ in range(10)]
    offsets = torch.arange(len(vocabularies) * count + 1)
    gradient = torch.randn(count, len(vocabularies) * width)
    turn = iter(range(10**9))

    def step() -> None:
        tables(batches[next(turn) % 10], offsets).backward(gradient)

    return clock(step, yardstick.batch)


def parts(yardstick: Yardstick) -> dict[str, float]:
    """Processor seconds per million rows of each part."""
    found, batch = {}, yardstick.batch
    for widths in yardstick.mlps:
        found[f"MLP {'-'.join(map(str, widths))}"] = mlp(widths, batch, input_gradient=widths[0] > 13)
    for widths in yardstick.step_mlps:
        name = f"MLP {'-'.join(map(str, widths))} over the steps"
        found[name] = mlp(widths, batch, input_gradient=True, steps=MEAN_STEPS)
    if yardstick.dot:
        found["dot interaction"] = dot_interaction(batch)
    if yardstick.similarity:
        found[f"similarities, width {yardstick.similarity}"] = similarity(yardstick.similarity, batch)
    for width in yardstick.table_widths:
        found[f"look-up and update, width {width}"] = look_up(yardstick.vocabularies, width, yardstick)
        if yardstick.histories:
            name = f"look-up and update of the steps, width {width}"
            found[name] = look_up(yardstick.histories, width, yardstick, steps=MEAN_STEPS)
    return found


if __name__ == "__main__":
    (chosen,) = (one for one in YARDSTICKS if one.name == sys.argv[1])
    print(json.dumps({name: round(value, 2) for name, value in parts(chosen).items()}))
