"""Wrong configs and what is said of each: tests/golden/configs/<name>.config and <name>.txt.

A first line `# --set <text>` gives an override. To add a case, write the .config and run

    REGENERATE_GOLDEN=1 python -m pytest tests/golden/test_wrong_configs.py

then read what was written: these are the words that users see. The files' messages are compared in
full, so that no place, name or remedy is lost unseen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rec.config.errors import ConfigError
from rec.config.load import Loaded, load_config

FOLDER = Path(__file__).parent / "configs"
CASES = sorted(p.stem for p in FOLDER.glob("*.config"))


def features(loaded: Loaded) -> None:
    from rec.features.build import build_features

    build_features(loaded.config)


def tasks(loaded: Loaded) -> None:
    from rec.tasks import build_tasks

    build_tasks(loaded.config)


def network(loaded: Loaded) -> None:
    from rec.config.registry import oneof
    from rec.embedding.group import EmbeddingGroup
    from rec.features.build import build_features
    from rec.models import MODELS

    model_config = loaded.config.model_config
    group = EmbeddingGroup(build_features(loaded.config), model_config, backend="plain")
    MODELS.build(oneof(model_config, "model"), group.shapes, num_class=model_config.num_class)


# What is tried on a config that loads, in order, until one refuses it.
STAGES: list[Callable[[Loaded], None]] = [features, tasks, network]


def message_of(name: str) -> str:
    first = (FOLDER / f"{name}.config").read_text().splitlines()[0]
    overrides = [first.removeprefix("# --set ")] if first.startswith("# --set ") else []
    try:
        loaded = load_config(f"{name}.config", overrides)
    except ConfigError as e:
        return str(e)
    for stage in STAGES:
        try:
            stage(loaded)
        except ConfigError as e:
            return loaded.describe(e)
    return "accepted"


@pytest.mark.parametrize("name", CASES)
def test_message_is_the_golden_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    message = message_of(name)
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("REGENERATE_GOLDEN"):
        golden.write_text(message + "\n")
    assert message != "accepted"
    assert message + "\n" == golden.read_text()


@pytest.mark.parametrize("name", CASES)
def test_message_begins_with_a_place(name: str) -> None:
    place, _, text = (FOLDER / f"{name}.txt").read_text().partition(": ")
    parts = place.split(":")
    assert len(parts) == 3
    assert all(p.isdecimal() for p in parts[1:])
    assert parts[0] == "--set" or (FOLDER / parts[0]).is_file()
    assert text.strip()


def test_there_are_thirty_and_no_stale_message() -> None:
    assert len(CASES) >= 30
    assert {p.stem for p in FOLDER.glob("*.txt")} == set(CASES)


def test_what_they_include_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    loaded = load_config("base/full.config")
    assert loaded.warnings == []
