from pathlib import Path

import pytest

from rec.config.load import load_config

CONFIGS = sorted(Path(__file__).parents[2].glob("configs/*.config"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_without_a_warning_and_writes_to_a_folder_of_its_name(path):
    loaded = load_config(path)
    assert loaded.warnings == []
    assert loaded.config.model_dir == f"experiments/{path.stem}"
    assert loaded.config.test_input_path or loaded.config.eval_config.top_k.input_path


def test_the_models_that_issue_2_compares_are_there():
    names = {path.stem for path in CONFIGS}
    for data in ("frappe", "movielens"):
        for model in ("lr", "deepfm", "dcn_v2", "masknet", "finalmlp", "dcnv3", "autoint_plus"):
            assert f"{model}_{data}" in names
