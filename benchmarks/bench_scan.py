"""The selective scan against loops over time, and its cost against length: `python -m benchmarks.bench_scan`.

Processor milliseconds of forward and backward, one thread, float32; median and spread (interquartile) of repeats after
a warm-up. Each way is first checked against the reference in float64. `--write` makes docs/results/scan.md and
scan.png. mambapy's parallel scan is timed where mambapy is on the path.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.run import commit, machine
from rec.modules.mamba import MambaBlock
from rec.ops.selective_scan import reference, selective_scan
from tools.tables import markdown

PAGES = Path(__file__).parents[1] / "docs" / "results"
Scan = Callable[..., Tensor]  # u, delta, A, B, C, D, lengths -> y


@dataclass(frozen=True)
class Shape:
    """Sizes of a scan; `ragged` rows have 0 to `length` steps."""

    rows: int
    length: int
    channels: int
    states: int
    ragged: bool = False

    def __str__(self) -> str:
        length = f"0..{self.length}" if self.ragged else str(self.length)
        return f"B {self.rows} L {length} E {self.channels} S {self.states}"

    def lengths(self) -> Tensor:
        if not self.ragged:
            return torch.full((self.rows,), self.length)
        drawn = torch.randint(0, self.length + 1, (self.rows,), generator=torch.Generator().manual_seed(0))
        drawn[0] = self.length
        return drawn

    def inputs(self) -> list[Tensor]:
        """As a fresh Mamba block has them: steps of 0.001 to 0.1, rates -1 to -S."""
        g = torch.Generator().manual_seed(0)
        n, e, s = int(self.lengths().sum()), self.channels, self.states
        delta = 0.001 * 100 ** torch.rand(n, e, generator=g)
        rates = -torch.arange(1.0, s + 1).repeat(e, 1)
        u, b, c = (torch.randn(n, width, generator=g) for width in (e, s, s))
        return [t.requires_grad_() for t in (u, delta, rates, b, c, torch.ones(e))]


SHAPES = (
    Shape(64, 50, 256, 16),
    Shape(64, 50, 256, 16, ragged=True),
    Shape(64, 50, 128, 32),
    Shape(256, 50, 64, 8),
    Shape(16, 200, 128, 16),
    Shape(4, 1000, 128, 16),
)
LENGTHS = (50, 100, 200, 400, 700, 1000)


def padded(scan: Scan) -> Scan:
    """A scan of padded [B, L, ...] tensors, as one of jagged rows; padding has delta 0, which changes no state."""

    def jagged(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        place = mask.nonzero(as_tuple=True)
        dense = [t.new_zeros(*mask.shape, t.shape[1]).index_put(place, t) for t in (u, delta, B, C)]
        return scan(dense[0], dense[1], A, dense[2], dense[3], D)[place]

    return jagged


def plain_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The loop over t that everyone writes, with what does not depend on the state taken out of it."""
    decays = torch.exp(delta.unsqueeze(-1) * A).unbind(1)
    added = ((delta * u).unsqueeze(-1) * B.unsqueeze(2)).unbind(1)
    h = torch.zeros_like(added[0])
    outputs = []
    for decay, new, c in zip(decays, added, C.unbind(1), strict=True):
        h = decay * h + new
        outputs.append((h @ c.unsqueeze(2)).squeeze(2))
    return torch.stack(outputs, dim=1) + D * u


def parallel_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The parallel scan of mambapy, as its block calls it."""
    from mambapy.pscan import pscan

    states = pscan(torch.exp(delta.unsqueeze(-1) * A), (delta * u).unsqueeze(-1) * B.unsqueeze(2))
    return (states @ C.unsqueeze(-1)).squeeze(3) + D * u


def ways() -> dict[str, Scan]:
    """The ways to be timed, the plain loop first."""
    found: dict[str, Scan] = {"plain loop over t": padded(plain_loop)}
    if importlib.util.find_spec("mambapy"):
        found["mambapy's parallel scan"] = padded(parallel_scan)
    return found | {"reference.py": reference.selective_scan, "selective_scan": selective_scan}


def check(scan: Scan, shape: Shape) -> None:
    """Outputs and gradients of a smaller batch against float64."""
    small = Shape(min(shape.rows, 4), min(shape.length, 70), min(shape.channels, 32), shape.states, shape.ragged)
    lengths, inputs = small.lengths(), small.inputs()
    exact_inputs = [t.detach().double().requires_grad_() for t in inputs]
    y, exact = scan(*inputs, lengths), reference.selective_scan(*exact_inputs, lengths)
    pairs = [(y, exact), *zip(_gradients(y, inputs), _gradients(exact, exact_inputs), strict=True)]
    for got, want in pairs:
        # float32 sums over 280 steps and 32 channels.
        assert (got - want).abs().max() <= 1e-5 * want.abs().max(), f"wrong for {small}"


def _gradients(y: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y))


def milliseconds(call: Callable[[], object], *, repeats: int) -> tuple[float, float]:
    """Median and interquartile range of a call's processor time."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append((time.process_time() - start) * 1e3)
    low, _, high = statistics.quantiles(times, n=4) if repeats > 1 else (times[0], 0, times[0])
    return statistics.median(times), high - low


def timed(scan: Scan, shape: Shape, *, repeats: int) -> tuple[float, float]:
    """Forward and backward of a shape."""
    lengths, inputs = shape.lengths(), shape.inputs()
    up = torch.ones(inputs[0].shape)
    return milliseconds(lambda: torch.autograd.grad(scan(*inputs, lengths), inputs, up), repeats=repeats)


def compared(*, repeats: int) -> list[list[str]]:
    """A line for each shape and way."""
    lines = []
    for shape in SHAPES:
        base = 0.0
        for name, scan in ways().items():
            check(scan, shape)
            median, spread = timed(scan, shape, repeats=repeats)
            base = base or median
            line = [str(shape), name, f"{median:.1f}", f"{spread:.1f}", f"{base / median:.1f}x"]
            print("  ".join(line), flush=True)
            lines.append(line)
    return lines


def by_length(*, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of 8 rows at each of LENGTHS, for the plain loop and ours, and of a whole Mamba block."""
    found: dict[str, list[float]] = {}
    for name in ("plain loop over t", "selective_scan"):
        scan = ways()[name]
        found[name] = [timed(scan, Shape(8, length, 128, 16), repeats=repeats)[0] for length in LENGTHS]
        print(name, [f"{ms:.1f}" for ms in found[name]], flush=True)
    torch.manual_seed(0)
    block = MambaBlock(64)
    found["MambaBlock(64)"] = [milliseconds(_pass(block, 8, length), repeats=repeats)[0] for length in LENGTHS]
    print("block", [f"{ms:.1f}" for ms in found["MambaBlock(64)"]], flush=True)
    return found


def _pass(block: nn.Module, rows: int, length: int) -> Callable[[], object]:
    x, lengths = torch.randn(rows * length, 64), torch.full((rows,), length)
    return lambda: block(x, lengths).square().sum().backward()


def plot(found: dict[str, list[float]], path: Path) -> None:
    """Cost against length."""
    from tools.plots import new_figure

    figure, (left, right) = new_figure(height=3.4, panels=2)
    for name, times in found.items():
        left.plot(LENGTHS, times, marker="o", label=name)
        right.plot(LENGTHS, [ms / (8 * n) * 1e3 for ms, n in zip(times, LENGTHS, strict=True)], marker="o")
    left.set(xlabel="steps of a row", ylabel="processor ms", yscale="log", xscale="log")
    right.set(xlabel="steps of a row", ylabel="processor µs per step", yscale="log", ylim=(1, None))
    left.legend(fontsize=8)
    figure.suptitle("Forward and backward, 8 rows, E 128, S 16, one thread", fontsize=10)
    figure.savefig(path, dpi=110)


def page(lines: list[list[str]], found: dict[str, list[float]], *, repeats: int) -> str:
    """The result page in Markdown."""
    lengths = [
        [name, *(f"{ms:.1f}" for ms in times), f"{times[-1] / LENGTHS[-1] / (times[0] / LENGTHS[0]):.2f}"]
        for name, times in found.items()
    ]
    return "\n".join(
        [
            "# Selective scan",
            "",
            f"Processor milliseconds of forward and backward, one thread, float32; median of {repeats} after a "
            "warm-up, and interquartile spread. Each way was first checked against the reference in float64. "
            f"`python -m benchmarks.bench_scan --write`, commit {commit()}, {machine()}, "
            f"load {os.getloadavg()[0]:.0f}.",
            "",
            markdown(["shape", "way", "ms", "spread", "faster"], lines),
            "",
            "B rows, L steps a row, E channels, S states. Rows of 0..50 steps are padded for the first two ways.",
            "`reference.py` is what runs without a C compiler.",
            "",
            "## Cost against length",
            "",
            "8 rows, E 128, S 16; the last column is the cost of a step at 1000 over that at 50: 1 is linear.",
            "",
            markdown(["way", *(str(n) for n in LENGTHS), "a step, 1000 : 50"], lengths),
            "",
            "![cost against length](scan.png)",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write docs/results/scan.md and scan.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = compared(repeats=args.repeats)
    found = by_length(repeats=args.repeats)
    text = page(lines, found, repeats=args.repeats)
    if args.write:
        PAGES.joinpath("scan.md").write_text(text)
        plot(found, PAGES / "scan.png")
    else:
        print(text)


if __name__ == "__main__":
    main()
