import pytest
import torch
from torch import nn
from toys import config, network

from rec.config.errors import ConfigError
from rec.train import state
from rec.train.ema import Ema
from rec.train.settings import build_ema

AVERAGED = "train_config { dense_optimizer { ema { decay: 0.5 tables: true } } }"


def test_an_average_is_of_the_last_tenth_of_the_steps_until_its_horizon():
    weight = nn.Parameter(torch.zeros(2))
    ema = Ema({"w": weight, "count": torch.tensor(3)}, decay=0.3)
    weight.data.fill_(11.0)
    ema.update(step=1)  # 2 / 11 of the past
    assert ema.state()["w"].tolist() == pytest.approx([9.0, 9.0])
    weight.data.fill_(19.0)
    ema.update(step=1000)  # .3 of it
    assert ema.state()["w"].tolist() == pytest.approx([16.0, 16.0])
    assert list(ema.state()) == ["w"]  # what is counted is not averaged


def test_applied_swaps_values_within_the_memory_of_the_weights():
    weight = nn.Parameter(torch.tensor([1.0]))
    ema, view = Ema({"w": weight}, decay=0.5), weight.detach()
    weight.data.fill_(5.0)
    with ema.applied():
        assert view.tolist() == [1.0]
    assert (view.tolist(), ema.state()["w"].tolist()) == ([5.0], [1.0])


def test_tables_and_running_statistics_are_averaged_as_asked():
    net = network(0, norm=True)
    with_tables = build_ema(config(AVERAGED).train_config, net).state()
    without = build_ema(config(AVERAGED.replace("tables: true", "")).train_config, net).state()
    assert with_tables.keys() - without.keys() == {"tables.item"}  # and not the state of its optimizer
    assert "model.norm.running_mean" in without
    assert build_ema(config().train_config, net) is None


def test_tables_of_half_precision_are_refused(monkeypatch):
    net = network(0)
    half = {"tables.item": torch.zeros(2, 2, dtype=torch.float16)}
    monkeypatch.setattr(state, "table_tensors", lambda _: half)
    with pytest.raises(ConfigError, match=r"tables\.item: only FP32 tables are averaged"):
        build_ema(config(AVERAGED).train_config, net)


def test_tables_on_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr("rec.train.ranks.world", lambda: 2)
    with pytest.raises(ConfigError, match="on one process only"):
        build_ema(config(AVERAGED).train_config, network(0))
