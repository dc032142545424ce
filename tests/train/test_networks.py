"""Real networks on two processes: losses, tables on TorchRec and their optimizer states as on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_networks

from rec.train.checkpoint import Checkpointer
from tests.tiny_data import write_tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder with checkpoints of two processes and of one."""
    folder = tmp_path_factory.mktemp("networks")
    data = write_tiny(folder / "data")
    script = Path(__file__).parent / "two_networks.py"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = []
    for rank, world, place in ((0, 2, folder), (1, 2, folder), (0, 1, folder / "one")):
        place.mkdir(exist_ok=True)
        arguments = [sys.executable, str(script), str(rank), str(world), str(data), str(place)]
        workers.append(subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
    errors = [w.communicate(timeout=200)[1].decode()[-3000:] for w in workers]
    assert [w.returncode for w in workers] == [0, 0, 0], "\n".join(errors)
    return folder


@pytest.mark.parametrize("name", list(two_networks.SCENARIOS))
def test_two_processes_train_tables_and_model_as_one(run, name):
    one = Checkpointer(run / "one" / f"{name}-1").latest().read(prefix="")
    two = Checkpointer(run / f"{name}-2").latest().read(prefix="")
    assert {n for n in one if not n.startswith("rank")} == {n for n in two if not n.startswith("rank")}
    assert any(n.startswith("tables.item") for n in one)
    for n, value in one.items():
        if n.startswith("rank"):
            continue
        # Sums in another order. Adam and Adagrad divide by a root that is nearly 0 at first, which enlarges it.
        torch.testing.assert_close(two[n], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=n: f"{n}: {m}")
