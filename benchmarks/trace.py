"""`python -m benchmarks.trace <out.json> [--profile] <arguments of rec.main>`: rec.main with a clock around each step.

Nothing in the package knows of it: `TrainStep.__call__` is wrapped once `rec.train.step` has been imported, at the
moment and in the order in which the job imports it. Steps are clocked in processor seconds of this process (all its
threads, without reader processes): wall time is noisy on shared machines.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

WARM_UP = 10
PROFILED = range(20, 40)


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module after it was executed."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self.name, self.then = name, then

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        """The module's own spec, with a loader that goes on to call the function."""
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class Clock:
    """Times of the training steps."""

    def __init__(self, *, profile: bool) -> None:
        self.steps: list[tuple[float, float, int]] = []  # processor and wall seconds at the end, rows of the step
        self.first_step_s = self.first_step_cpu_s = 0.0
        self.peak_in_training = 0
        self.profile = profile
        self.profiler: Any = None

    def wrap(self, module: ModuleType) -> None:
        """Put the clock around TrainStep.__call__."""
        call = module.TrainStep.__call__

        def clocked(this: Any, batches: Sequence[Any], **named: Any) -> Any:
            if self.profile and len(self.steps) == PROFILED.start:
                self._start_profiler()
            result = call(this, batches, **named)
            self.steps.append((time.process_time(), time.monotonic(), sum(batch.size for batch in batches)))
            if len(self.steps) == 1:
                self.first_step_s, self.first_step_cpu_s = _since_start(), time.process_time()
            if len(self.steps) % 20 == 0:
                self.peak_in_training = _peak_bytes()
            if self.profiler is not None and len(self.steps) == PROFILED.stop:
                self.profiler.stop()
            return result

        module.TrainStep.__call__ = clocked

    def _start_profiler(self) -> None:
        import torch

        self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self.profiler.start()

    def report(self) -> dict[str, Any]:
        """What was measured."""
        found: dict[str, Any] = {
            "steps": len(self.steps),
            "first_step_s": round(self.first_step_s, 3),
            "first_step_cpu_s": round(self.first_step_cpu_s, 3),
            "peak_bytes_in_training": self.peak_in_training,
            "peak_bytes": _peak_bytes(),
        }
        if len(self.steps) > WARM_UP + 1:
            (cpu_0, wall_0, _), (cpu_1, wall_1, _) = self.steps[WARM_UP - 1], self.steps[-1]
            rows = sum(rows for _, _, rows in self.steps[WARM_UP:])
            found |= {
                "rows": rows,
                "cpu_s_per_million": round((cpu_1 - cpu_0) / rows * 1e6, 3),
                "wall_s_per_million": round((wall_1 - wall_0) / rows * 1e6, 3),
            }
        if self.profiler is not None:
            found["profile"] = self._operators()
        return found

    def _operators(self) -> list[dict[str, Any]]:
        """Operators by their own processor time, as shares of all of it."""
        averages = [event for event in self.profiler.key_averages() if event.self_cpu_time_total > 0]
        total = sum(event.self_cpu_time_total for event in averages)
        averages.sort(key=lambda event: -event.self_cpu_time_total)
        return [
            {
                "operator": event.key,
                "share": round(event.self_cpu_time_total / total, 4),
                "ms_per_step": round(event.self_cpu_time_total / 1000 / len(PROFILED), 3),
                "calls_per_step": round(event.count / len(PROFILED), 1),
            }
            for event in averages[:20]
        ]


def _since_start() -> float:
    """Seconds since this process was started (by the kernel's clock, so imports count)."""
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _peak_bytes() -> int:
    """Largest resident set. Not ru_maxrss: that is inherited from the parent at exec."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> int:
    """Run rec.main and write the report."""
    out, *arguments = sys.argv[1:]
    profile = arguments[0] == "--profile"
    clock = Clock(profile=profile)
    sys.meta_path.insert(0, AfterImport("rec.train.step", clock.wrap))
    from rec.main import main as run

    code = run(arguments[1:] if profile else arguments)
    Path(out).write_text(json.dumps(clock.report()) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
