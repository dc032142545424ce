from __future__ import annotations

from pathlib import Path

import pytest

from rec.config.errors import ConfigError
from rec.config.load import Loaded, load_config, load_text
from rec.protos import data_pb2, pipeline_pb2
from tests.config.texts import FEATURES, FULL, MODEL, TRAIN


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.config").write_text(text)
    return folder / "main.config"


def loaded(folder: Path, *overrides: str, text: str = FULL) -> Loaded:
    return load_config(write(folder, main=text), overrides)


def names(config: pipeline_pb2.EasyRecConfig) -> list[str]:
    return [f.id_feature.feature_name or f.raw_feature.feature_name for f in config.feature_configs]


class TestDescribe:
    def test_finds_a_message_of_the_config_by_identity(self, tmp_path: Path) -> None:
        found = loaded(
            tmp_path,
            text='eval_config {}\nfeature_configs { id_feature {\n feature_name: "a" num_buckets: 9 embedding_dim: 4 }}'
            + FULL,
        )
        feature = found.config.feature_configs[0].id_feature
        error = ConfigError("num_buckets is 9", feature, "num_buckets", hint="give 10")
        assert found.describe(error) == f"{tmp_path}/main.config:3:20: num_buckets is 9; give 10"

    def test_finds_elements_of_repeated_fields(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, text=FULL.replace("hidden_units: [8]", "hidden_units: [8,\n 16]"))
        mlp = found.config.model_config.multi_tower.towers[0].mlp
        assert found.where(mlp, "hidden_units", 1).endswith(":17:2")
        assert found.where(mlp, "hidden_units").endswith(":16:61")

    def test_a_field_that_is_not_set_points_to_its_message(self, tmp_path: Path) -> None:
        found = loaded(tmp_path)
        assert found.where(found.config.train_config, "seed").endswith("main.config:3:1")

    def test_a_message_that_nobody_wrote_points_to_the_file(self, tmp_path: Path) -> None:
        found = loaded(tmp_path)
        assert found.where(data_pb2.DataConfig()) == f"{tmp_path}/main.config"
        assert found.where(None) == f"{tmp_path}/main.config"

    def test_places_outlive_garbage(self, tmp_path: Path) -> None:
        import gc

        found = loaded(tmp_path)
        gc.collect()
        places = {found.where(f) for f in found.config.feature_configs}
        assert len(places) == 3


class TestOverrides:
    def test_a_scalar_is_replaced_and_the_rest_stays(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, "train_config { num_epochs: 7 }")
        assert found.config.train_config.num_epochs == 7
        assert found.config.train_config.sparse_optimizer.adagrad_optimizer.lr == 0.01
        assert found.warnings == []

    def test_a_repeated_field_is_replaced(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, 'data_config { label_fields: ["a", "b"] }')
        assert list(found.config.data_config.label_fields) == ["a", "b"]

    def test_a_repeated_field_named_twice_replaces_once(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, 'data_config { label_fields: "a" label_fields: "b" }')
        assert list(found.config.data_config.label_fields) == ["a", "b"]

    def test_only_the_outermost_repeated_field_is_replaced(self, tmp_path: Path) -> None:
        over = 'model_config { multi_tower { towers { input: "deep" mlp { hidden_units: [1, 2] } } } }'
        model = loaded(tmp_path, over).config.model_config
        assert [list(t.mlp.hidden_units) for t in model.multi_tower.towers] == [[1, 2]]
        assert list(model.multi_tower.final.hidden_units) == [4]
        assert len(model.feature_groups) == 1

    def test_an_empty_list_clears(self, tmp_path: Path) -> None:
        assert len(loaded(tmp_path, "model_config { metrics: [] }").config.model_config.metrics) == 0

    def test_another_member_of_a_oneof_takes_its_place(self, tmp_path: Path) -> None:
        config = loaded(tmp_path, "train_config { dense_optimizer { sgd_optimizer { lr: 1 } } }").config
        dense = config.train_config.dense_optimizer
        assert dense.WhichOneof("optimizer") == "sgd_optimizer"
        assert dense.WhichOneof("learning_rate") == "constant_learning_rate"

    def test_the_same_member_of_a_oneof_merges(self, tmp_path: Path) -> None:
        over = "train_config { dense_optimizer { adam_optimizer { beta1: 0.5 } } }"
        adam = loaded(tmp_path, over).config.train_config.dense_optimizer.adam_optimizer
        assert (adam.lr, adam.beta1) == (0.001, 0.5)

    def test_zero_unsets_one_of_steps_and_epochs(self, tmp_path: Path) -> None:
        train = loaded(tmp_path, "train_config { num_epochs: 0 num_steps: 9 }").config.train_config
        assert (train.num_epochs, train.num_steps) == (0, 9)

    def test_several_apply_in_order(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, "train_config { num_epochs: 2 }", "train_config { num_epochs: 3 }")
        assert found.config.train_config.num_epochs == 3

    def test_an_error_is_located_in_the_override(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r'^--set:1:16: TrainConfig has no field "num_epoch"; did you mean'):
            loaded(tmp_path, "train_config { num_epoch: 2 }")
        with pytest.raises(ConfigError, match=r"^--set#2:1:1: "):
            loaded(tmp_path, "train_config { num_epochs: 2 }", "nonsense: 1")

    def test_two_members_of_a_oneof_in_one_override_are_refused(self, tmp_path: Path) -> None:
        over = "train_config { dense_optimizer { sgd_optimizer { lr: 1 } adamw_optimizer { lr: 1 } } }"
        with pytest.raises(ConfigError, match=r"^--set:1:58: .*both set"):
            loaded(tmp_path, over)

    def test_a_range_works_in_an_override(self, tmp_path: Path) -> None:
        over = 'feature_configs { id_feature { feature_name: "c_[0-2]" num_buckets: 5 embedding_dim: 4 } }'
        assert names(loaded(tmp_path, over).config) == ["c_0", "c_1", "c_2"]


class TestInclude:
    def test_the_including_file_wins_and_repeated_fields_append(self, tmp_path: Path) -> None:
        base = TRAIN + FEATURES
        main = (
            'include: "base.config" model_dir: "mine" train_config { num_epochs: 5 }'
            'feature_configs { id_feature { feature_name: "extra" num_buckets: 5 embedding_dim: 4 } }' + MODEL
        )
        found = load_config(write(tmp_path, base=base, main=main))
        assert found.config.model_dir == "mine"
        assert found.config.train_config.num_epochs == 5
        assert names(found.config) == ["user_id", "item_id", "price", "extra"]
        assert found.warnings == []
        assert not found.config.include

    def test_an_empty_list_takes_away_what_included_files_gave(self, tmp_path: Path) -> None:
        recipe = "model_config { losses: [] losses { binary_cross_entropy { label_smoothing: 0.1 } } }"
        base = TRAIN + FEATURES + MODEL
        found = load_config(write(tmp_path, base=base, recipe=recipe, main='include: ["base.config", "recipe.config"]'))
        (loss,) = found.config.model_config.losses
        assert loss.binary_cross_entropy.label_smoothing == 0.1
        assert found.warnings == []
        own = (
            'include: "base.config" feature_configs: []'
            'feature_configs { id_feature { feature_name: "user_id" num_buckets: 5 embedding_dim: 4 } }'
            "model_config { feature_groups: []"
            '  feature_groups { group_name: "deep" group_type: DEEP feature_names: "user_id" } }'
        )
        found = load_config(write(tmp_path, base=base, main=own))
        assert names(found.config) == ["user_id"]
        with pytest.raises(ConfigError, match="model_config has no losses"):
            load_config(write(tmp_path, base=base, main='include: "base.config" model_config { losses: [] }'))
        one = 'feature_configs { id_feature { feature_name: "extra" num_buckets: 5 embedding_dim: 4 } }'
        found = load_config(write(tmp_path, base=base, main=f'include: "base.config" feature_configs: [] {one}'))
        assert names(found.config) == ["extra"]

    def test_the_later_of_two_includes_wins(self, tmp_path: Path) -> None:
        base, recipe = TRAIN + FEATURES + MODEL, "train_config { num_epochs: 7 }"
        found = load_config(write(tmp_path, base=base, recipe=recipe, main='include: ["base.config", "recipe.config"]'))
        assert found.config.train_config.num_epochs == 7

    def test_paths_are_relative_to_the_including_file(self, tmp_path: Path) -> None:
        (tmp_path / "parts" / "deep").mkdir(parents=True)
        (tmp_path / "parts" / "deep" / "train.config").write_text(TRAIN)
        (tmp_path / "parts" / "all.config").write_text('include: "deep/train.config"' + FEATURES)
        found = load_config(write(tmp_path, main='include: "parts/all.config"' + MODEL))
        assert found.where(found.config.train_config) == f"{tmp_path}/parts/deep/train.config:3:1"

    def test_a_file_included_on_two_ways_is_read_once(self, tmp_path: Path) -> None:
        texts = {"a": 'include: "f.config"' + TRAIN, "b": 'include: "f.config"', "f": FEATURES}
        found = load_config(write(tmp_path, main='include: ["a.config", "b.config"]' + MODEL, **texts))
        assert len(found.config.feature_configs) == 3

    def test_another_member_of_a_oneof_takes_its_place(self, tmp_path: Path) -> None:
        main = 'include: "base.config" train_config { dense_optimizer { sgd_optimizer { lr: 1 } } }'
        found = load_config(write(tmp_path, base=FULL, main=main))
        assert found.config.train_config.dense_optimizer.WhichOneof("optimizer") == "sgd_optimizer"

    @pytest.mark.parametrize("name", ["main", "other"])
    def test_a_circle_is_refused(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path, main=f'include: "{name}.config"', other='include: "main.config"')
        with pytest.raises(ConfigError, match=r"include each other: main\.config -> "):
            load_config(path)


class TestResolved:
    SHORT = (
        TRAIN
        + MODEL
        + """
    feature_defaults { embedding_dim: 4 init_fn: "nn.init.normal_,std=0.01" side: "item" }
    feature_configs { id_feature { feature_name: "cat_[0-3]" num_buckets: 10 } }
    feature_configs { raw_feature { feature_name: "int_[0-1]" } }
    """
    )

    @pytest.mark.parametrize("text", [FULL, SHORT], ids=["long", "short"])
    def test_loading_it_again_gives_the_same(self, tmp_path: Path, text: str) -> None:
        found = loaded(tmp_path, text=text)
        again = load_text(found.text())
        assert again.config == found.config
        assert again.text() == found.text()
        assert again.warnings == found.warnings

    def test_shorthands_are_written_out(self, tmp_path: Path) -> None:
        text = loaded(tmp_path, text=self.SHORT).text()
        assert "[0-3]" not in text
        assert "*" not in text
        assert "feature_defaults" not in text
        assert 'feature_names: "cat_3"' in text


class TestDuplicates:
    def test_a_scalar_set_twice_warns_and_the_last_counts(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, text=FULL + 'model_dir: "second"')
        assert found.config.model_dir == "second"
        assert len(found.warnings) == 1
        assert '"model_dir" is set twice in EasyRecConfig (before at line 2)' in found.warnings[0]
        assert found.where(found.config, "model_dir").endswith("main.config:20:1")

    def test_a_block_set_twice_is_merged_with_a_warning(self, tmp_path: Path) -> None:
        found = loaded(tmp_path, text=FULL + "train_config { seed: 3 }")
        assert (found.config.train_config.seed, found.config.train_config.num_epochs) == (3, 1)
        assert "the two are merged" in found.warnings[0]


def test_include_is_refused_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--set:1:1: include works in files only"):
        loaded(tmp_path, 'include: "x.config"')
    with pytest.raises(ConfigError, match=r"^<text>:1:1: include works in files only"):
        load_text('include: "x.config"')


def test_a_missing_file_is_told_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, main=FULL)
    with pytest.raises(
        ConfigError, match=r"cannot read config .*mian.config: No such file.*did you mean .*main.config"
    ):
        load_config(tmp_path / "mian.config")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.config").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "main.config")


def test_loading_needs_no_torch() -> None:
    import subprocess
    import sys

    heavy = "any(m in sys.modules for m in ('torch', 'pyarrow'))"
    code = f"import sys, rec.config.load, rec.config.registry; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
