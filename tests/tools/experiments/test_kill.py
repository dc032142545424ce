"""kill -9 on the real thing: the command, and a training below it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny_data import overrides, write_tiny
from tests.tools.experiments.conftest import ROOT, TINY

EXPERIMENT = """
title: "Killed"
models {{ name: "First" config: "{tiny}/deepfm.config" }}
models {{ name: "Second" config: "{tiny}/dcn_v2.config" }}
seeds: 0
set {{ {data} train_config {{ num_epochs: 6 save_checkpoints_steps: 8 use_tensorboard: false }} }}
"""


@pytest.fixture
def start():
    """Starts the command; what a failing test leaves is ended."""
    started = []

    def begin(path, folder):
        started.append(_start(path, folder))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _start(path, folder):
    command = [sys.executable, "-m", "tools.experiment", str(path), "--no-plots", "--runs", str(folder / "runs")]
    command += ["--output", str(folder / "out")]
    # A session of its own: the command and what it starts can be killed together.
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)


def wait_for(what, process, *, seconds=400):
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, "it ended before there was anything to kill"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_with_its_training_and_then_alone_it_goes_on(tmp_path, start):
    data = " ".join(overrides(write_tiny(tmp_path / "data"))[:2])
    path = tmp_path / "killed.textproto"
    path.write_text(EXPERIMENT.format(tiny=TINY, data=data))
    first, second = (tmp_path / "runs" / name / "seed0" for name in ("first", "second"))

    # All of it, in the midst of the second training.
    process = start(path, tmp_path)
    wait_for(lambda: any((second / "checkpoints").glob("step-*")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = (first / "run.json").read_bytes()
    assert not (second / "run.json").exists()

    # The command alone: its training goes on without it, and the next command waits for that one's end.
    process = start(path, tmp_path)
    wait_for(lambda: "resumed from" in (second / "log.txt").read_text(), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(path, tmp_path)
    assert process.wait(timeout=400) == 0
    assert (first / "run.json").read_bytes() == done
    run = json.loads((second / "run.json").read_text())
    assert run["resumed"]
    assert run["epoch"] == 6
    records = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    # 2,000 rows in batches of 128 are 16 steps an epoch; nothing is evaluated twice or left out.
    assert [record["step"] for record in records] == list(range(8, 97, 8))
    assert (tmp_path / "out/killed.csv").read_text().count("\n") == 3
