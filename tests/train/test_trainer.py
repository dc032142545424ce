import json

import pytest
import torch
from toys import ToyLoader, config, network, tasks

from rec.config.errors import ConfigError
from rec.train import state
from rec.train.checkpoint import CheckpointError
from rec.train.trainer import Trainer


class Killed(Exception):
    pass


def trainer(tmp_path, extra="", *, drop="", seed=0, dropout=0.3, **kwargs):
    cfg = config(extra, drop=drop)
    loaders = {"train_loader": ToyLoader(), "eval_loader": ToyLoader(seed=5, shuffle=False)} | kwargs
    return Trainer(network(seed, dropout=dropout, norm=True), tasks(cfg), cfg, model_dir=tmp_path, **loaders)


def lines(path):
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in found]


def weights(t):
    return {n: w.clone() for n, w in state.network_tensors(t.network).items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


def test_it_learns_evaluates_and_saves(tmp_path):
    t = trainer(tmp_path, "train_config { num_epochs: 15 }", test_loader=ToyLoader(seed=6))
    metrics = t.train()
    assert metrics["auc"] > 0.8
    assert metrics["test_auc"] > 0.7
    assert t.checkpointer.steps() == [105]
    entries = lines(tmp_path)
    assert [(e["step"], e["epoch"], e["split"], e["rows"]) for e in entries] == [
        (105, 15, "eval", 64),
        (105, 15, "test", 64),
    ]
    assert {"auc", "loss"} <= entries[0]["metrics"].keys()
    assert {"loss", "train_auc"} <= entries[0]["train"].keys()


def test_repeats_are_bit_equal(tmp_path):
    a, b = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    a.train(), b.train()
    assert_equal(weights(a), weights(b))
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    c = trainer(tmp_path / "c", "train_config { seed: 1 }")
    c.train()
    assert any(not torch.equal(weights(a)[n], weights(c)[n]) for n in weights(a))


def test_training_rows_are_scored_beside_the_evaluation(tmp_path):
    text = "train_config { num_epochs: 4 eval_every_epochs: 2 }"
    t = trainer(tmp_path, text, sample_loader=ToyLoader(shuffle=False), test_loader=ToyLoader(seed=6))
    t.train()
    entries = lines(tmp_path)
    assert [entry["split"] for entry in entries] == ["eval", "eval", "test"]
    # The sample is all training rows here, as they are scored at the end: without dropout, by the final weights.
    assert entries[1]["train_rows"] == t.evaluate(ToyLoader(shuffle=False))
    assert entries[1]["gap"]["auc"] == entries[1]["train_rows"]["auc"] - entries[1]["metrics"]["auc"]
    assert "gap" not in entries[2]
    # It changes nothing else.
    plain = trainer(tmp_path / "plain", text, test_loader=ToyLoader(seed=6))
    plain.train()
    assert_equal(weights(t), weights(plain))
    assert [{k: v for k, v in e.items() if k not in ("gap", "train_rows")} for e in entries] == lines(
        tmp_path / "plain"
    )


def test_evaluations_with_training_rows_survive_a_resume(tmp_path):
    text = "train_config { num_epochs: 3 eval_every_epochs: 1 }"
    trainer(tmp_path, text, sample_loader=ToyLoader(shuffle=False)).train()
    before = lines(tmp_path)
    trainer(tmp_path, text, sample_loader=ToyLoader(shuffle=False)).train()
    assert lines(tmp_path) == before


FEATURES = """train_config {
  save_checkpoints_steps: 3 gradient_accumulation_steps: 2 num_epochs: 3
  dense_optimizer { ema { decay: 0.9 tables: true } cosine_annealing_learning_rate { warmup_size: 3 } }
  grad_clipping { clipping_type: "norm" }
}"""


@pytest.mark.parametrize("kill_at", [1, 3, 4, 6, 7, 8, 10, 12])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, kill_at):
    whole = trainer(tmp_path / "whole", FEATURES)
    whole.train()
    assert whole.step == 12  # 7 batches in pairs: 4 steps an epoch

    broken = trainer(tmp_path / "broken", FEATURES)
    step_fn = broken.step_fn

    def dying(batches, *, step):
        if step == kill_at:
            raise Killed
        return step_fn(batches, step=step)

    dying.scaler = None
    broken.step_fn = dying
    with pytest.raises(Killed):
        broken.train()
    # other initial weights: all must come from the checkpoint, where there is one
    resumed = trainer(tmp_path / "broken", FEATURES, seed=9 if kill_at > 3 else 0)
    resumed.train()
    assert_equal(weights(whole), weights(resumed))
    assert_equal(whole.ema.state(), resumed.ema.state())
    assert_equal(whole.optimizers.state(), resumed.optimizers.state())
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")


def test_killed_between_saving_and_evaluating(tmp_path):
    whole = trainer(tmp_path / "whole", FEATURES)
    whole.train()
    broken = trainer(tmp_path / "broken", FEATURES)

    def die(*_):
        raise Killed

    broken._evaluate_and_record = die
    with pytest.raises(Killed):
        broken.train()
    assert broken.checkpointer.steps() == [3]
    trainer(tmp_path / "broken", FEATURES).train()
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")


def test_killed_while_a_line_was_written(tmp_path):
    trainer(tmp_path / "whole", FEATURES).train()
    trainer(tmp_path / "broken", FEATURES).train()
    path = tmp_path / "broken" / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    trainer(tmp_path / "broken", FEATURES).train()
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")


def test_a_damaged_checkpoint_costs_only_the_way_from_the_one_before(tmp_path, caplog):
    whole = trainer(tmp_path, FEATURES)
    whole.train()
    before, entries = weights(whole), lines(tmp_path)
    file = tmp_path / "checkpoints" / "step-12" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:100])
    again = trainer(tmp_path, FEATURES)
    again.train()
    assert "step-12 refused" in caplog.text
    assert_equal(before, weights(again))
    assert lines(tmp_path) == entries


def test_a_finished_run_says_so_and_evaluates_again(tmp_path, caplog):
    caplog.set_level("INFO")
    first = trainer(tmp_path, test_loader=ToyLoader(seed=6))
    metrics = first.train()
    entries = lines(tmp_path)
    second = trainer(tmp_path, seed=3, test_loader=ToyLoader(seed=6))
    assert second.train() == metrics
    assert "is finished" in caplog.text
    assert lines(tmp_path) == entries
    longer = trainer(tmp_path, "train_config { num_epochs: 3 }")
    longer.train()
    assert longer.step == 21


def test_num_steps_ends_in_the_middle_of_an_epoch(tmp_path):
    t = trainer(tmp_path, "train_config { num_steps: 10 }", drop="num_epochs")
    t.train()
    assert t.step == 10
    assert t.run.position == {"epoch": 1, "batch": 3}
    assert t.history.records[-1].epoch == 2


@pytest.mark.parametrize(
    ("text", "drop", "saved", "evaluated"),
    [
        ("save_checkpoints_steps: 5", "", [5, 10, 14], [5, 10, 14]),
        ("save_checkpoints_epochs: 1", "", [7, 14], [7, 14]),
        ("save_checkpoints_steps: 5 eval_every_epochs: 1", "", [5, 7, 10, 14], [7, 14]),
        ("save_checkpoints_steps: 7", "", [7, 14], [7, 14]),
        ("keep_checkpoint_max: 1 save_checkpoints_steps: 5", "", [14], [5, 10, 14]),
    ],
)
def test_when_it_saves_and_evaluates(tmp_path, text, drop, saved, evaluated):
    t = trainer(tmp_path, f"train_config {{ {text} best_metric: 'loss' }}", drop=drop)
    t.train()
    best = t.best_step()
    assert t.checkpointer.steps() == sorted({*saved, best})
    assert [r.step for r in t.history.records] == evaluated


def test_early_stopping_and_the_best_weights(tmp_path):
    text = """train_config { num_epochs: 50 save_checkpoints_epochs: 1 restore_best: true keep_checkpoint_max: 1
      early_stopping { metric: "loss" patience: 2 } best_metric: "loss"
      dense_optimizer { adam_optimizer { lr: 0.3 } } }"""
    t = trainer(tmp_path, text, eval_loader=ToyLoader(seed=77, shuffle=False))
    metrics = t.train()
    losses = [r.metrics["loss"] for r in t.history.records]
    best = losses.index(min(losses))
    assert len(losses) == best + 3
    assert t.best_step() == 7 * (best + 1)
    assert metrics["loss"] == min(losses)
    assert t.evaluate(t.loaders["eval"])["loss"] == min(losses)
    assert t.checkpointer.steps() == [7 * (best + 1), 7 * (best + 3)]
    again = trainer(tmp_path, text, eval_loader=ToyLoader(seed=77, shuffle=False))
    assert again.train() == metrics


@pytest.mark.parametrize("tables", ["false", "true"])
def test_a_checkpoint_gives_the_weights_or_the_averages(tmp_path, tables):
    t = trainer(tmp_path, f"train_config {{ dense_optimizer {{ ema {{ decay: 0.9 tables: {tables} }} }} }}")
    t.train()
    raw = weights(t)
    with t.averaged():
        averaged = weights(t)
    assert torch.equal(raw["tables.item"], averaged["tables.item"]) == (tables == "false")
    assert not torch.equal(raw["model/model.norm.running_mean"], averaged["model/model.norm.running_mean"])
    for ema, expected in ((False, raw), (True, averaged)):
        other = trainer(tmp_path / "other", seed=7)
        state.load_network(other.network, t.checkpointer.latest(), ema=ema)
        found = weights(other)
        assert [n for n in found if not state.is_table_state(n) and not torch.equal(found[n], expected[n])] == []


def test_evaluation_uses_the_averages_and_training_does_not(tmp_path):
    text = "train_config { dense_optimizer { ema { decay: 0.5 } } }"
    t = trainer(tmp_path, text)
    t.train()
    raw = weights(t)
    with t.averaged():
        averaged = weights(t)
        auc = {name: value for name, value in t.evaluate(t.loaders["eval"]).items()}
    assert_equal(raw, weights(t))
    assert any(not torch.equal(raw[n], averaged[n]) for n in raw)
    assert auc != t.history.records[-1].metrics  # averaged() twice gives the raw weights
    assert t.evaluate(t.loaders["eval"]) == t.history.records[-1].metrics


def test_restore_is_strict_and_lists_the_differences(tmp_path):
    t = trainer(tmp_path)
    t.train()
    other = trainer(tmp_path)
    other.network.model.hidden = torch.nn.Linear(5, 9)
    other.network.model.extra = torch.nn.Linear(1, 1)
    other.network.model.norm = torch.nn.Identity()
    with pytest.raises(CheckpointError) as err:
        state.load_network(other.network, t.checkpointer.latest())
    text = str(err.value)
    assert "missing (2):\n    model/model.extra.bias" in text
    assert "unexpected (5):\n    model/model.norm.bias" in text
    assert "model/model.hidden.weight: [8, 5] in the checkpoint, [9, 5] in the network" in text


def test_another_optimizer_does_not_take_over_the_state(tmp_path):
    trainer(tmp_path).train()
    with pytest.raises(CheckpointError, match="their states do not fit"):
        trainer(tmp_path, "train_config { dense_optimizer { sgd_optimizer { lr: 0.1 } } }").train()


def test_fine_tune_takes_weights_and_starts_at_step_zero(tmp_path):
    source = trainer(tmp_path / "a")
    source.train()
    t = trainer(tmp_path / "b", f'train_config {{ fine_tune_checkpoint: "{tmp_path / "a"}" }}', seed=4)
    t._start()
    assert t.step == 0
    got, had = weights(t), weights(source)
    assert_equal({n: got[n] for n in got if "momentum" not in n}, {n: had[n] for n in had if "momentum" not in n})
    assert float(got["tables.item.momentum"].sum()) == 0


def test_fine_tune_maps_names(tmp_path):
    source = trainer(tmp_path / "a")
    source.train()
    t = trainer(tmp_path / "b", seed=4)
    net = t.network
    net.model.top = net.model.final
    del net.model.final
    text = f'train_config {{ fine_tune_checkpoint: "{tmp_path / "a"}" '
    with pytest.raises(CheckpointError, match=r"model\.top\.weight"):
        trainer_of(net, tmp_path / "b", text + "}")._start()
    initial = net.model.hidden.weight.clone()
    lines_ = r"model.top.* model.final.*\nmodel.hidden.* -  # from anew"
    trainer_of(net, tmp_path / "b", text + f'fine_tune_ckpt_param_map: "{lines_}" }}')._start()
    assert torch.equal(net.model.top.weight, source.network.model.final.weight)
    assert torch.equal(net.model.hidden.weight, initial)
    with pytest.raises(ConfigError, match="expected 'new old'"):
        trainer_of(net, tmp_path / "b", text + 'fine_tune_ckpt_param_map: "a b c" }')._start()


def trainer_of(net, path, extra):
    cfg = config(extra)
    return Trainer(net, tasks(cfg), cfg, model_dir=path, train_loader=ToyLoader())


def test_an_fp16_overflow_is_left_out_of_the_loss(tmp_path):
    text = 'train_config { mixed_precision: "FP16" grad_scaler { init_scale: 1e7 } }'
    t = trainer(tmp_path, text)
    t.train()
    assert t.step_fn.scaler.scale < 1e7
    assert 0.2 < t.history.records[-1].train["loss"] < 1.0


def test_tensorboard_and_profile_are_written(tmp_path):
    text = """train_config { use_tensorboard: true is_profiling: true
      tensorboard_summaries: ["parameter", "gradient_norm", "global_gradient_norm"] }"""
    trainer(tmp_path, text).train()
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert (tmp_path / "profile" / "trace.json").exists()
    assert "aten::" in (tmp_path / "profile" / "operators.txt").read_text()


@pytest.mark.parametrize(
    ("text", "drop", "message"),
    [
        ("num_steps: 3", "", "num_steps 3 and num_epochs 2 are both set"),
        ("", "num_epochs", "neither num_steps nor num_epochs"),
        ("best_metric: 'acu'", "", '"acu" is no metric .*did you mean "auc"'),
        ("early_stopping { metric: 'loggloss' }", "", "no metric of the evaluation"),
        ("early_stopping { patience: 0 }", "", "patience is 0"),
        ("tensorboard_summaries: 'norm'", "", "tensorboard_summaries 'norm'"),
        ("lr_world_scaling: 'cubic'", "", "lr_world_scaling 'cubic'"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, text, drop, message):
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path, f"train_config {{ {text} }}", drop=drop)


def test_early_stopping_needs_an_evaluation(tmp_path):
    with pytest.raises(ConfigError, match="nothing to look at"):
        trainer(tmp_path, "train_config { early_stopping {} }", eval_loader=None).train()
