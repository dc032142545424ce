"""TensorBoard summaries, and the profiler's trace."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError

if TYPE_CHECKING:
    from rec.metrics import Histogram
    from rec.protos import train_pb2

log = logging.getLogger(__name__)

KINDS = ("loss", "learning_rate", "parameter", "gradient", "parameter_norm", "gradient_norm", "global_gradient_norm")
_ALWAYS = {"loss", "learning_rate"}


class Summaries:
    """Writes what `tensorboard_summaries` asks for into `model_dir/tensorboard`.

    Args:
        config: `train_config`.
        directory: None writes nothing (other ranks than 0).
        purge_step: a resumed run hides what an earlier one wrote from this step on.
    """

    def __init__(self, config: train_pb2.TrainConfig, directory: Path | None, *, purge_step: int = 0) -> None:
        self.kinds = _ALWAYS | set(config.tensorboard_summaries)
        for i, kind in enumerate(config.tensorboard_summaries):
            if kind not in KINDS:
                raise ConfigError(
                    f"tensorboard_summaries {kind!r}",
                    config,
                    "tensorboard_summaries",
                    index=i,
                    hint=f"known: {', '.join(KINDS)}",
                )
        self.directory = directory if config.use_tensorboard else None
        self.purge_step = purge_step
        self._writer: Any = None

    def scalars(self, step: int, values: Mapping[str, float], *, prefix: str) -> None:
        """Write numbers as `<prefix>/<name>`."""
        writer = self._open()
        if writer is None:
            return
        for name, value in values.items():
            writer.add_scalar(f"{prefix}/{name}", value, step)

    def histograms(self, step: int, values: Mapping[str, Histogram], *, prefix: str) -> None:
        """Write histograms as `<prefix>/<name>`."""
        writer = self._open() if values else None
        if writer is None:
            return
        for name, h in values.items():
            writer.add_histogram_raw(
                f"{prefix}/{name}",
                min=h.low,
                max=h.high,
                num=sum(h.counts),
                sum=h.total,
                sum_squares=h.squares,
                bucket_limits=list(h.edges[1:]),
                bucket_counts=list(h.counts),
                global_step=step,
            )

    def learning_rates(self, step: int, values: Mapping[str, float]) -> None:
        """Write the learning rate of each optimizer."""
        self.scalars(step, values, prefix="learning_rate")

    def parameters(self, step: int, params: Mapping[str, nn.Parameter]) -> None:
        """Write histograms and norms of parameters and gradients, as asked for. Call before gradients are dropped."""
        if self.kinds == _ALWAYS or self._open() is None:
            return
        grads = {n: p.grad for n, p in params.items() if p.grad is not None}
        self._of(step, "parameter", {n: p.detach() for n, p in params.items()})
        self._of(step, "gradient", grads)
        if "global_gradient_norm" in self.kinds and grads:
            norms = torch.stack([g.float().norm() for g in grads.values()])
            self._writer.add_scalar("global_gradient_norm", float(norms.norm()), step)

    def _of(self, step: int, kind: str, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            if kind in self.kinds:
                self._writer.add_histogram(f"{kind}/{name}", value.float().cpu().numpy(), step)
            if f"{kind}_norm" in self.kinds:
                self._writer.add_scalar(f"{kind}_norm/{name}", float(value.float().norm()), step)

    def _open(self) -> Any:
        if self.directory is None:
            return None
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter  # lazily: 1-2 s of imports
            except ImportError:
                log.warning("no TensorBoard summaries: the package tensorboard is not installed")
                self.directory = None
                return None
            self._writer = SummaryWriter(str(self.directory), purge_step=self.purge_step)
        return self._writer

    def flush(self) -> None:
        """Make what was written visible."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Profiler:
    """`is_profiling`: traces ten steps after two of warm-up into `model_dir/profile`.

    Args:
        directory: None profiles nothing.
    """

    steps = 10

    def __init__(self, directory: Path | None) -> None:
        self._profile: Any = None
        if directory is None:
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=1, warmup=1, active=self.steps, repeat=1),
            on_trace_ready=lambda p: _write_trace(p, directory),
        )
        self._profile.start()

    def step(self) -> None:
        """End a step."""
        if self._profile is not None:
            self._profile.step()

    def close(self) -> None:
        """End; a training shorter than the schedule writes what it has."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None


def _write_trace(profile: Any, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(directory / "trace.json"))
    table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
    (directory / "operators.txt").write_text(table, encoding="utf-8")
    log.info("profile of %d steps in %s (open trace.json in chrome://tracing or Perfetto)", Profiler.steps, directory)
