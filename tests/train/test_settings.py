import pytest
import torch
from toys import config

from rec.config.errors import ConfigError
from rec.train.progress import Progress
from rec.train.settings import config_files, learning_rate_scale, read_param_map, warn_of_dead, warn_of_idle
from rec.train.state import ParamMap


def test_vocabularies_travel_with_the_config(tmp_path):
    (tmp_path / "a").mkdir()
    for folder in ("", "a/"):
        (tmp_path / f"{folder}city.txt").write_text("x\n")
    features = [
        f'feature_configs {{ id_feature {{ feature_name: "{name}" vocab_file: "{path}" }} }}'
        for name, path in (
            ("one", tmp_path / "city.txt"),
            ("two", tmp_path / "a" / "city.txt"),
            ("three", tmp_path / "city.txt"),
            ("remote", "s3://bucket/city.txt"),
        )
    ]
    files = config_files(config("\n".join(features)))
    assert "feature_configs" in files.pop("pipeline.config")
    assert files == {"assets/city.txt": tmp_path / "city.txt", "assets/city-2.txt": tmp_path / "a" / "city.txt"}


def test_world_scaling():
    def scale(kind):
        return learning_rate_scale(config(f'train_config {{ lr_world_scaling: "{kind}" }}').train_config, 4)

    assert [scale(kind) for kind in ("none", "linear", "sqrt")] == [1, 4, 2]


def test_param_map_lines():
    found = ParamMap("a.* b.*  # comment\n\nx y\nhead_* -\n*.bias -")
    names = ["a.w", "a.bias", "x", "head_1.w", "c.bias", "c.w"]
    # the first line that matches counts
    assert [found.source(n) for n in names] == ["b.w", "b.bias", "y", None, None, "c.w"]
    assert found.unused(["a.w"]) == ["x y", "head_* -", "*.bias -"]


@pytest.mark.parametrize("text", ["a", "a b c", "a* b", "a b*"])
def test_wrong_param_map_lines(text):
    with pytest.raises(ValueError, match="line 1 is"):
        ParamMap(text)


def test_a_param_map_may_be_a_file(tmp_path):
    (tmp_path / "map").write_text("new old")
    text = 'train_config {{ fine_tune_ckpt_param_map: "{}" }}'
    assert read_param_map(config(text.format(tmp_path / "map")).train_config).source("new") == "old"
    with pytest.raises(ConfigError, match="No such file"):
        read_param_map(config(text.format(tmp_path / "none")).train_config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grad_scaler {}", "grad_scaler has no effect"),
        ("best_metric_larger_is_better: true", "best_metric_larger_is_better has no effect"),
        ("save_checkpoints_steps: 1 save_checkpoints_epochs: 1", "save_checkpoints_steps has no effect"),
        ("tensorboard_summaries: 'parameter' use_tensorboard: false", "tensorboard_summaries has no effect"),
    ],
)
def test_settings_without_effect_are_told(text, message, caplog):
    warn_of_idle(config(f"train_config {{ {text} }}").train_config)
    assert message in caplog.text


def test_steps_switched_off_beside_epochs_are_no_slip(caplog):
    warn_of_idle(config("train_config { save_checkpoints_steps: 0 save_checkpoints_epochs: 1 }").train_config)
    assert not caplog.text


def test_parameters_that_no_loss_reaches_are_told(caplog):
    used, idle = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    used.sum().backward()
    warn_of_dead({"a": used})
    assert not caplog.text
    warn_of_dead({"a": used, "heads.b": idle})
    assert "no loss reaches 3 parameters (heads.b)" in caplog.text


def test_progress_lines_have_place_values_rate_and_remaining_time(caplog):
    caplog.set_level("INFO")
    progress = Progress(total_steps=10, epochs=2)
    for _ in range(5):
        progress.advance(100)
    progress._since -= 2.0  # as if two seconds had passed
    rate = progress.report(0, {"loss": 0.5})
    assert 200 < rate <= 250
    assert "step 5/10  epoch 1/2  loss 0.5  " in caplog.text
    assert "ETA 0:02" in caplog.text
