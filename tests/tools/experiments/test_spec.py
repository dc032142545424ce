import re

import pytest

from rec.config.errors import ConfigError
from rec.config.load import load_config
from tests.tools.experiments.conftest import EXPERIMENT, ROOT
from tools import reproduce
from tools.experiments import spec

READY = sorted((ROOT / "configs" / "experiments").glob("*.textproto"))


def test_models_times_variants_times_seeds(written):
    text = EXPERIMENT + (
        'variants {{ name: "As it is" }} '
        'variants {{ name: "Large batch" set {{ data_config {{ batch_size: 512 }} }} }} baseline_variant: "As it is"'
    )
    loaded = spec.load(written(text))
    assert [(row.model, row.variant, row.folder) for row in loaded.rows] == [
        ("Deep & wide", "As it is", "deep_wide/as_it_is"),
        ("Deep & wide", "Large batch", "deep_wide/large_batch"),
        ("DCN", "As it is", "dcn/as_it_is"),
        ("DCN", "Large batch", "dcn/large_batch"),
    ]
    assert loaded.seeds == (0, 1, 2)
    assert loaded.metrics == ("auc", "logloss")
    # The last one wins: the variant's over the model's over the experiment's.
    config = load_config(loaded.rows[3].config, list(loaded.rows[3].overrides)).config
    assert config.data_config.batch_size == 512
    assert config.train_config.num_epochs == 1
    assert [metric.WhichOneof("metric") for metric in config.model_config.metrics] == ["auc"]
    # Each is held against the baseline under its own variant, and against itself under the baseline variant.
    assert loaded.baseline_of(loaded.rows[1]) == loaded.rows[3]
    assert loaded.baseline_of(loaded.rows[3]) is None
    assert loaded.baseline_variant_of(loaded.rows[3]) == loaded.rows[2]
    assert loaded.baseline_variant_of(loaded.rows[2]) is None


def test_seeds_take_their_own_pieces_in_turn_and_the_command_line_comes_last(written):
    own = 'per_seed {{ name: "a" set {{ data_config {{ batch_size: 16 }} }} }} per_seed {{ name: "b" }}'
    loaded = spec.load(written(EXPERIMENT + own))

    def sizes(row):
        return [load_config(row.config, row.overrides_of(seed)).config.data_config.batch_size for seed in loaded.seeds]

    assert sizes(loaded.rows[1]) == [16, 64, 16]
    assert sizes(spec.overridden(loaded, ["data_config { batch_size: 8 }"]).rows[1]) == [8, 8, 8]


def test_the_nearest_reference_counts(written):
    text = EXPERIMENT.replace('name: "DCN"', 'name: "DCN" references {{ value: 0.9 }}', 1)
    loaded = spec.load(written(text + 'references {{ value: 0.8 }} references {{ metric: "logloss" value: 0.3 }}'))
    assert loaded.rows[0].references == {"auc": 0.8, "logloss": 0.3}
    assert loaded.rows[1].references == {"auc": 0.9, "logloss": 0.3}


@pytest.mark.parametrize(("asked", "seeds"), [(None, (0, 1, 2)), (2, (0, 1)), (4, (0, 1, 2, 3))])
def test_seeds_are_those_of_the_file_or_as_many_as_asked_for(written, asked, seeds):
    assert spec.load(written(), seeds=asked).seeds == seeds


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('baseline: "DCN"', 'baseline: "DCM"', 'toy.textproto:11:1: baseline is "DCM"; did you mean "DCN"'),
        (
            "deepfm.config",
            "deepfn.config",
            r'toy.textproto:4:\d+: there is no file .*deepfn.config; did you mean ".*deepfm',
        ),
        ("batch_size", "bach_size", 'toy.textproto:8:23: DataConfig has no field "bach_size"'),
        ('title: "Toy"', "", 'Experiment lacks "title", which is required'),
        ('name: "DCN"', 'name: "deep wide"', 'two models would share the folder of "Deep & wide"'),
        ("[0, 1, 2]", "[0, 1, 1]", "toy.textproto:10:9: a seed is there twice"),
        ('name: "DCN"', "", r'toy.textproto:5:1: ExperimentModel lacks "name"'),
    ],
)
def test_what_is_wrong_is_named_with_its_place(written, old, new, message):
    assert old in EXPERIMENT
    with pytest.raises(ConfigError) as raised:
        spec.load(written(EXPERIMENT.replace(old, new, 1)))
    assert re.search(message, str(raised.value)), str(raised.value)


def test_an_experiment_without_models_is_refused(written):
    with pytest.raises(ConfigError, match="the experiment has no models; add models"):
        spec.load(written('title: "x"'))


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_experiments_load_and_so_do_their_configs(path):
    loaded = spec.load(path)
    for row in loaded.rows:
        found = load_config(row.config, list(row.overrides))
        assert found.warnings == []


def test_every_published_table_has_an_experiment():
    assert {path.stem for path in READY} >= set(reproduce.TABLES)


def test_the_example_of_the_guide_loads(tmp_path):
    page = (ROOT / "docs" / "guide" / "experiments.md").read_text()
    (text,) = re.findall(r"```proto\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "mine.textproto"
    path.write_text(text.replace("../", f"{ROOT}/configs/"))
    loaded = spec.load(path)
    assert len(loaded.rows) * len(loaded.seeds) == 9
    for row in loaded.rows:
        assert load_config(row.config, list(row.overrides)).warnings == []
