"""Two processes with half of the rows each give the values of one with all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metrics import two_ranks

HERE = Path(__file__).parent


@pytest.mark.parametrize("split", ["half", "idle"])
def test_two_processes_give_the_values_of_one(split: str, tmp_path: Path):
    env = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "two_ranks.py")]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), split], env=env, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    first, second = (json.loads(rank.communicate(timeout=120)[0]) for rank in ranks)
    assert first == second
    expected = two_ranks.evaluate(0, 1)
    assert list(first) == list(expected)
    # float64 sums in another order; the losses of a batch are float32 sums
    assert first == pytest.approx(expected, rel=1e-6)
