"""All speed figures in one run, one thread: `python -m benchmarks.run`; writes docs/results/benchmarks.md and .json.

Processor seconds of the training process per million rows after the first ten steps, start to the end of the first
step, and peak memory, for the yardstick configs; their parts by themselves, timed in the same run; DeepCTR-Torch and
plain PyTorch on vocabularies of 6 M rows, and on histories of 50 steps; retrieval. Medians of fresh processes; what is
missed is listed as such. `--only` measures some parts again and leaves the others as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import bench_retrieval, ours, sequences
from benchmarks.peers import PEERS
from benchmarks.shapes import LARGE, SEQUENCE_ROWS, YARDSTICKS, Yardstick
from tools.tables import Cell, markdown

GIB = 2**30
BEYOND_TABLES = 0.6 * GIB
START_LIMIT_S = 8.0
BARE_FACTOR = 1.1
PEER_FACTOR = 10
READER_LIMIT = 2.5
PARTS = ("yardsticks", "peers", "sequences", "retrieval", "profile", "reader")


def large_data(target: Path, rows: int) -> None:
    """Criteo-like rows over vocabularies of 6 M rows in all, by tools.generate."""
    info = target / "info.json"
    if info.exists() and json.loads(info.read_text())["rows"]["train"] == rows:
        return
    print(f"generating {target}", flush=True)
    sizes = ["--train", str(rows), "--valid", "20000", "--test", "1000", "--dense", "13", "--pairs", "2"]
    ours.module("tools.generate", "clicks", "--output", str(target), *sizes, "--vocabularies", *map(str, LARGE))


def yardsticks(bench: Path, data: Path, rows: int, repeats: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each config `repeats` times, and its bare parts."""
    found = {}
    for one in (one for one in YARDSTICKS if one.name in names):
        ours.yardstick_data(bench, data / one.data, SEQUENCE_ROWS if one.data == "seq_like" else rows)
        runs = []
        for turn in range(repeats):
            runs.append(ours.traced(bench / f"{one.name}.config", ours.paths(data / one.data)))
            print(
                f"{one.name} {turn + 1}/{repeats}: {runs[-1]['cpu_s_per_million']:.1f} CPU s per million rows",
                flush=True,
            )
        parts = json.loads(ours.module("benchmarks.bare", one.name))
        found[one.name] = {"runs": runs, "parts": parts, **circumstances()}
    return found


def peers(data: Path, repeats: int, search: Sequence[str]) -> dict[str, dict[str, Any]]:
    """DeepFM and DCN v2 over large vocabularies: ours with both optimizers, and elsewhere."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("deepfm", "dcn_v2"):
            table: dict[str, Any] = {}
            for name, adam in (("ProtoRec, lazy Adam", True), ("ProtoRec, Adagrad", False)):
                config = ours.large_config(Path(folder), kind, LARGE, adam=adam)
                turns = [ours.traced(config, ours.paths(data, evaluation="valid")) for _ in range(repeats)]
                table[name] = statistics.median(turn["cpu_s_per_million"] for turn in turns)
                print(f"{kind}, {name}: {table[name]:.1f}", flush=True)
            for name in PEERS:
                try:
                    out = ours.module(
                        "benchmarks.peers", name, kind, "--data", str(data / "train"), "--large", path=search
                    )
                    table[name] = json.loads(out.strip().splitlines()[-1])["cpu_s_per_million"]
                except RuntimeError as error:
                    table[name] = None
                    print(f"{kind}, {name}: not run: {str(error).splitlines()[-1]}", flush=True)
                    continue
                print(f"{kind}, {name}: {table[name]:.1f}", flush=True)
            found[kind] = table
    return found


def yardstick_rows(found: dict[str, dict[str, Any]]) -> list[list[Cell]]:
    """A row per config: ours, its limit, the bare parts, the other framework, start, memory, AUC."""
    rows: list[list[Cell]] = []
    for one in YARDSTICKS:
        if one.name not in found:
            continue
        runs, parts = found[one.name]["runs"], found[one.name]["parts"]
        cpu = [run["cpu_s_per_million"] for run in runs]
        median, bare = statistics.median(cpu), sum(parts.values())
        start = statistics.median(run["first_step_s"] for run in runs)
        start_cpu = statistics.median(run["first_step_cpu_s"] for run in runs)
        in_training = statistics.median(run["peak_bytes_in_training"] for run in runs)
        peak, allowed = statistics.median(run["peak_bytes"] for run in runs), allowed_bytes(one)
        rows.append(
            [
                one.name,
                f"{median:.1f}",
                f"{max(cpu) - min(cpu):.1f}",
                limit(median, one.limit),
                f"{bare:.1f}",
                f"{median / bare:.2f}",
                one.other,
                limit(start, START_LIMIT_S),
                f"{start_cpu:.1f}",
                limit(peak / GIB, allowed / GIB, digits=2),
                f"{in_training / GIB:.2f}",
                evaluated([run["metrics"] for run in runs]),
                f"{found[one.name]['commit']}, {found[one.name]['load']}",
            ]
        )
    return rows


def evaluated(runs: Sequence[dict[str, float]]) -> str:
    """Median of the first metric."""
    name = next(iter(runs[0]))
    return f"{name} {statistics.median(metrics[name] for metrics in runs):.4f}"


def allowed_bytes(one: Yardstick) -> float:
    """Tables and Adagrad's sums of squares, which are as large, and 0.6 GiB for everything else."""
    return 2 * one.table_bytes + BEYOND_TABLES


def limit(value: float, bound: float, *, digits: int = 1) -> str:
    """A value beside its limit, marked where it is missed."""
    return (
        f"{value:.{digits}f} <= {bound:.{digits}f}"
        if value <= bound
        else f"{value:.{digits}f} > {bound:.{digits}f} (missed)"
    )


def peer_rows(found: dict[str, dict[str, Any]]) -> list[list[Cell]]:
    """A row per implementation: seconds, and how often our lazy Adam fits into them."""
    rows: list[list[Cell]] = []
    names = list(next(iter(found.values())))
    for name in names:
        row: list[Cell] = [name]
        for table in found.values():
            value, base = table[name], table["ProtoRec, lazy Adam"]
            missed = " (missed)" if name == "DeepCTR-Torch" and value is not None and value < PEER_FACTOR * base else ""
            row += [None, None] if value is None else [f"{value:.0f}", f"{value / base:.1f}x{missed}"]
        rows.append(row)
    return rows


def page(found: dict[str, Any]) -> str:
    """The result page."""
    lines = [
        "# Speed",
        "",
        f"{found['machine']}, one thread, one reader process. Processor seconds of the training process per million",
        f"rows after the first ten steps; medians of up to {_repeats(found)} fresh processes, spread is largest minus",
        f"smallest. Load: of {os.cpu_count()} cores. Commit {found['commit']} where none is named. By `make bench`.",
        "",
        "## The yardsticks",
        "",
    ]
    header = ["config", "CPU s / M rows", "spread", "limit", "bare parts", "ratio", "other framework"]
    header += ["s to first step", "CPU s to it", "peak GiB", "while training", "evaluation", "commit, load"]
    lines += [markdown(header, yardstick_rows(found["yardsticks"])), ""]
    lines += [
        "Bare parts: the MLPs, the interaction and the look-ups of the config by themselves, forward, backward and",
        "update, timed in the same run. Other framework: a well-known TorchRec framework on the same files, from",
        "`shared/bench/README.md`. Memory allowed: tables and optimizer state, and 0.6 GiB. A ratio below 1: DIN's",
        "first layer takes the target's share once a row, the in-batch softmax skips rows that are not positive.",
        "Parts:",
        "",
    ]
    for name, one in found["yardsticks"].items():
        lines.append(f"- {name}: " + ", ".join(f"{part} {value:.1f}" for part, value in one["parts"].items()))
    if found.get("peers"):
        lines += ["", f"## Vocabularies of {sum(LARGE) / 1e6:.0f} M rows", ""]
        header = ["implementation", *(text for kind in found["peers"] for text in (f"{kind} CPU s / M rows", "ratio"))]
        lines += [markdown(header, peer_rows(found["peers"])), ""]
        lines += ["Tables of width 16 and a linear part, MLP 512-256-128; DCN v2 with two full cross layers."]
        lines += ["DeepCTR-Torch 0.3.0 as its examples use it (L2 1e-5 by default), ten steps after three."]
        lines += [
            f"Ratio: to ProtoRec with lazy Adam; {PEER_FACTOR} is asked of DeepCTR-Torch. Both models are mostly matrix"
        ]
        lines += ["products, DCN v2 twice as many as DeepFM, and those cost every implementation the same."]
    if found.get("sequences"):
        lines += ["", *sequences.section(found["sequences"]["turns"]), noted(found["sequences"])]
    if found.get("retrieval"):
        lines += ["", *bench_retrieval.section(found["retrieval"]), noted(found["retrieval"])]
    if found.get("reader"):
        reader = found["reader"]
        lines += ["", "## Parquet to Batch", ""]
        lines += [f"{limit(reader['cpu_s_per_M'], READER_LIMIT, digits=2)} CPU seconds per million rows, of them"]
        lines += [f"{reader['trainer_cpu_s_per_M']:.2f} in the training process; 13 floats, 26 ids, shuffled."]
        lines += ["`python -m benchmarks.bench_reader` measures it alone.", ""]
    if found.get("profile"):
        lines += ["", "## Where the time goes: deepfm", ""]
        rows = [
            [one["operator"], f"{one['share']:.1%}", f"{one['ms_per_step']:.2f}", f"{one['calls_per_step']:.0f}"]
            for one in found["profile"]
        ]
        lines += [markdown(["operator", "share", "ms a step", "calls a step"], rows), ""]
        lines += [
            "Own time of PyTorch operators in steps 20 to 40, by torch.profiler; Python between them is not in it.",
            "",
        ]
    return "\n".join(lines)


def _repeats(found: dict[str, Any]) -> int:
    return max((len(one["runs"]) for one in found["yardsticks"].values()), default=found["repeats"])


def circumstances() -> dict[str, Any]:
    """What figures depend on: the commit, and what else runs."""
    return {"commit": commit(), "load": round(os.getloadavg()[0], 1)}


def noted(part: dict[str, Any]) -> str:
    """The circumstances of a part of the page."""
    return f"Commit {part['commit']}, load {part['load']}."


def machine() -> str:
    """Processor and versions."""
    import torch

    name = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        models = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        name = models[0] if models else name
    return f"{name}, torch {torch.__version__}"


def commit() -> str:
    """Short name of the commit, with -dirty where the tree has changes."""
    command = ["git", "-C", str(ours.ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bench", default=str(ours.ROOT.parent / "shared/bench"), help="yardsticks (%(default)s)")
    parser.add_argument("--data", default="data/bench", help="where generated data goes (%(default)s)")
    parser.add_argument("--rows", type=int, default=500_000, help="training rows (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per figure (%(default)s)")
    parser.add_argument("--peers-path", nargs="*", default=[], help="folder with deepctr_torch")
    parser.add_argument("--only", choices=PARTS, nargs="*", help="some parts only")
    names = [one.name for one in YARDSTICKS]
    parser.add_argument("--yardsticks", choices=names, default=names, nargs="*", help="some of them only")
    parser.add_argument("--output", default="docs/results", help="folder of the page (%(default)s)")
    given = parser.parse_args(arguments)
    wanted = set(given.only or PARTS)
    bench, data, out = Path(given.bench).resolve(), Path(given.data).resolve(), Path(given.output)
    file = out / "benchmarks.json"
    found: dict[str, Any] = json.loads(file.read_text()) if given.only and file.exists() else {"yardsticks": {}}
    found = {"commit": commit()} | found | {"machine": machine(), "repeats": given.repeats, "rows": given.rows}

    def save() -> str:
        """After each part: what a kill cuts off is the next one."""
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
        text = page(found)
        (out / "benchmarks.md").write_text(text)
        return text

    if wanted & {"profile", "reader"}:
        ours.yardstick_data(bench, data / "criteo_like", given.rows)
    if "yardsticks" in wanted:
        found["yardsticks"] |= yardsticks(bench, data, given.rows, given.repeats, given.yardsticks)
        save()
    if "peers" in wanted:
        large_data(data / "large", given.rows)
        found["peers"] = peers(data / "large", given.repeats, given.peers_path)
        save()
    if "sequences" in wanted:
        found["sequences"] = {"turns": {}, **circumstances()}
        for _ in range(given.repeats):
            sequences.add_turn(found["sequences"]["turns"], data / "sequences", given.peers_path)
            save()
    if "retrieval" in wanted:
        text = ours.module("benchmarks.bench_retrieval", "--bench", str(bench), "--data", str(data / "seq_like"))
        found["retrieval"] = circumstances()
        for line in text.splitlines():
            found["retrieval"] |= json.loads(line)
        save()
    if "profile" in wanted:
        found["profile"] = ours.traced(bench / "deepfm.config", ours.paths(data / "criteo_like"), profile=True)[
            "profile"
        ]
    if "reader" in wanted:
        text = ours.module("benchmarks.bench_reader", "--data", str(data / "criteo_like/train"))
        found["reader"] = json.loads(text.strip().splitlines()[-1])
    print(save())
    print(f"written to {out}/benchmarks.md and .json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
