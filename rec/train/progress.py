"""What a person sees while it trains: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from rec.train.history import describe

log = logging.getLogger(__name__)


class Progress:
    """Rate, remaining time and latest values of a training; silent on other ranks than 0.

    Args:
        total_steps: of the whole training, None when it is not known.
        epochs: of the whole training, 0 when it is not known.
        start_step: steps done by earlier runs.
        show: False for silence.
    """

    def __init__(self, *, total_steps: int | None, epochs: int, start_step: int = 0, show: bool = True) -> None:
        self.total_steps = total_steps
        self.epochs = epochs
        self.show = show
        self.steps = start_step
        self._rows = 0
        self._since = time.perf_counter()
        self._since_step = start_step
        self._bar: Any = None
        self._stack = contextlib.ExitStack()
        if show and sys.stderr.isatty():
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            # log lines of saving and evaluating go above the bar instead of through it
            self._stack.enter_context(logging_redirect_tqdm())
            self._bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True, smoothing=0.1)

    def advance(self, rows: int) -> None:
        """Count a step."""
        self.steps += 1
        self._rows += rows
        if self._bar is not None:
            self._bar.update(1)

    def report(self, epoch: int, values: Mapping[str, float]) -> float:
        """Show the values, and the rows per second since the last report, which is returned."""
        now = time.perf_counter()
        took = max(now - self._since, 1e-9)
        rate = self._rows / took
        if self.show:
            line = describe(values)
            if self._bar is not None:
                self._bar.set_description(
                    f"epoch {epoch + 1}" + (f"/{self.epochs}" if self.epochs else ""), refresh=False
                )
                self._bar.set_postfix_str(f"{line}  {rate:,.0f} rows/s")
            else:
                log.info("%s  %s  %.0f rows/s%s", self._place(epoch), line, rate, self._eta(took))
        self._rows, self._since, self._since_step = 0, now, self.steps
        return rate

    def pause(self) -> None:
        """Leave out of the rate what comes now (evaluation, saving); call again when it is over."""
        self._since = time.perf_counter()
        self._rows, self._since_step = 0, self.steps

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stack.close()

    def _place(self, epoch: int) -> str:
        step = f"step {self.steps}" + (f"/{self.total_steps}" if self.total_steps else "")
        return f"{step}  epoch {epoch + 1}" + (f"/{self.epochs}" if self.epochs else "")

    def _eta(self, took: float) -> str:
        done = self.steps - self._since_step
        if not self.total_steps or not done:
            return ""
        seconds = int((self.total_steps - self.steps) * took / done)
        minutes, s = divmod(max(seconds, 0), 60)
        h, m = divmod(minutes, 60)
        return f"  ETA {h}:{m:02d}:{s:02d}" if h else f"  ETA {m}:{s:02d}"
