"""Speed of MSA against length and width: `python -m benchmarks.bench_multimodal`.

Rows a second of a training step (forward, backward, Adam) and of an evaluation, without look-up or reader: three
modalities of widths 300, 74 and 47 whose rows have 1 to L steps, two blocks of self-attention each and one layer
between them, float32 and bfloat16 under autocast. Processor time of one thread on a CPU, of the clock on a GPU; median
of repeats after a warm-up. Each is first checked: bfloat16 within 0.05 of float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from google.protobuf import text_format
from torch import Tensor

from benchmarks.run import commit, machine
from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2
from tools.tables import markdown

MODALITIES = {"text": 300, "audio": 74, "video": 47}
LENGTHS, WIDTHS = (10, 20, 50, 100), (64, 128, 256)
ROWS = 64


def model_of(width: int, length: int) -> Model:
    """MSA of the specification."""
    torch.manual_seed(0)
    config = text_format.Parse(
        f"""msa {{ modalities: ["text", "audio", "video"] width: {width} encoder {{ num_layers: 2 }}
        cross_modal {{ }} }}""",
        model_pb2.ModelConfig(),
    )
    shapes = [
        GroupShape(
            name=name,
            type="SEQUENCE",
            features=((name, size),),
            sequence=((name, size),),
            max_length=length,
        )
        for name, size in MODALITIES.items()
    ]
    return MODELS.build(oneof(config, "model"), GroupShapes(shapes), num_class=1)


def inputs_of(length: int, device: torch.device) -> dict[str, Tensor]:
    """Rows of 1 to `length` steps, of each modality on its own."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, size in MODALITIES.items():
        lengths = torch.randint(1, length + 1, (ROWS,), generator=generator)
        lengths[0] = length
        tensors[f"{name}.lengths"] = lengths.to(device)
        tensors[f"{name}.sequence"] = torch.randn(int(lengths.sum()), size, generator=generator).to(device)
    return tensors


def seconds(call: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Median seconds of a call."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken = []
    for repeat in range(repeats + 2):
        start = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            taken.append(clock() - start)
    return statistics.median(taken)


def measure(width: int, length: int, device: torch.device, *, half: bool, repeats: int) -> tuple[float, float]:
    """Rows a second in training and in evaluation."""
    model, inputs = model_of(width, length).to(device), inputs_of(length, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = model(inputs)["logits"]
        logits.abs().mean().backward()
        optimizer.step()

    @torch.inference_mode()
    def score() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            return model(inputs)["logits"]

    model.eval()
    got = score()
    with torch.inference_mode():
        torch.testing.assert_close(got, model(inputs)["logits"], rtol=0.05, atol=0.05)
    evaluation = seconds(score, device, repeats=repeats)
    model.train()
    return ROWS / seconds(step, device, repeats=repeats), ROWS / evaluation


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_multimodal", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    rows = []
    for width in given.widths:
        for length in given.lengths:
            cells = [
                f"{rate:,.0f}"
                for half in (False, True)
                for rate in measure(width, length, device, half=half, repeats=given.repeats)
            ]
            rows.append([str(width), str(length), *cells])
            print(*rows[-1], file=sys.stderr, flush=True)
    header = ["width", "longest", "training fp32", "evaluation fp32", "training bf16", "evaluation bf16"]
    print(markdown(header, rows))
    print(f"\nRows a second, batches of {ROWS}. {machine()}, {os.cpu_count()} cores, commit {commit()}.")


if __name__ == "__main__":
    main()
