"""The snippets of docs/guide/config.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rec.config.errors import ConfigError
from rec.config.load import load_config, load_text
from tests.config.texts import TRAIN

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "config.md").read_text()
LONG, SHORT, CUSTOM = re.findall(r"```proto\n(.*?)```", PAGE, re.DOTALL)


def test_the_long_form_loads() -> None:
    assert load_text(LONG).warnings == []


def test_the_short_form_has_thirty_nine_features(tmp_path: Path) -> None:
    (tmp_path / "train.config").write_text(TRAIN)
    (tmp_path / "main.config").write_text(SHORT)
    found = load_config(tmp_path / "main.config")
    assert len(found.config.feature_configs) == 39
    assert [len(g.feature_names) for g in found.config.model_config.feature_groups] == [26, 26, 38]
    assert found.config.feature_configs[13].id_feature.expression == "item:cat_0"


def test_the_overrides_of_the_page_apply(tmp_path: Path) -> None:
    (tmp_path / "first.config").write_text(LONG)
    overrides = re.findall(r"--set '([^']*)'", PAGE)
    config = load_config(tmp_path / "first.config", overrides).config
    assert config.train_config.num_epochs == 3
    assert not config.model_config.metrics


def test_the_custom_loss_parses() -> None:
    text = LONG.replace("losses { binary_cross_entropy {} }", CUSTOM)
    assert load_text(text).config.model_config.losses[0].custom_loss.class_path == "my_package.losses:Poisson"


def test_the_error_is_the_one_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first.config").write_text(LONG.replace("mlp { hidden_units", "mlp { hiden_units"))
    with pytest.raises(ConfigError) as e:
        load_config("first.config")
    assert str(e.value) in PAGE
