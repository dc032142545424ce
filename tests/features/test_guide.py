"""The examples of docs/guide/features.md work."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.features.helpers import encode, features

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "features.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)
CONFIGS = [text for kind, text in BLOCKS if not kind]


def test_there_are_examples():
    assert len(CONFIGS) == 5


@pytest.mark.parametrize("text", CONFIGS)
def test_configs_of_the_guide_build(text, tmp_path, monkeypatch):
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    (tmp_path / "my_features.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    np.save("data/frames.npy", np.zeros((2, 8), np.float32))
    (tmp_path / "data/frames.txt").write_text("one\ntwo\n")
    built = features(text)
    assert built
    if built[0].name == "hour":
        assert encode(built[0], pa.array([0, 7200])).values.tolist() == [1, 3]


def test_every_normalizer_of_the_guide_parses():
    from rec.features.normalize import Normalizer

    settings = re.findall(r"`(method=[^`]*)`", GUIDE)
    assert len(settings) == 4
    for setting in settings:
        Normalizer(setting)


def test_the_guide_lists_every_function():
    from rec.features.arithmetic import Arithmetic

    (row,) = [line for line in GUIDE.splitlines() if line.startswith("| `method=expression")]
    assert not [name for name in Arithmetic.functions if not re.search(rf"\b{name}\b", row)]
