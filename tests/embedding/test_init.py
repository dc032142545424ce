"""Initial values: parsing and independence of placement."""

from __future__ import annotations

import math

import pytest
import torch

from rec.embedding import init
from rec.embedding.init import init_rows_, parse_init


def table(text: str, rows: int = 2000, dim: int = 8, *, name: str = "t", seed: int = 0) -> torch.Tensor:
    out = torch.full((rows, dim), math.nan)
    init_rows_(out, name=name, rows=rows, init=parse_init(text), seed=seed)
    return out


@pytest.mark.parametrize("name", ["nn.init.uniform_", "torch.nn.init.uniform_", "init.uniform_", "uniform_"])
def test_arguments_are_read(name):
    t = table(f"{name}, a=-0.5, b=0.25")
    assert -0.5 <= t.min() < -0.49
    assert 0.24 < t.max() <= 0.25


@pytest.mark.parametrize(
    ("text", "std"),
    [
        ("", 0.01),
        ("nn.init.normal_,std=0.5", 0.5),
        ("nn.init.xavier_normal_", math.sqrt(2 / 2008)),
        ("nn.init.xavier_uniform_,gain=2", 2 * math.sqrt(2 / 2008)),
        ("nn.init.kaiming_normal_,nonlinearity=relu", math.sqrt(2 / 8)),
        ("nn.init.kaiming_uniform_,mode='fan_out'", math.sqrt(2 / 2000)),
        ("nn.init.trunc_normal_,std=0.1,a=-10,b=10", 0.1),
    ],
)
def test_spread_is_that_of_torch(text, std):
    # 16,000 values: the standard error of a standard deviation is 0.6 %.
    assert table(text).std().item() == pytest.approx(std, rel=0.03)


def test_constants():
    assert table("nn.init.constant_,val=0.25").unique().tolist() == [0.25]
    assert table("nn.init.zeros_").unique().tolist() == [0]
    assert table("nn.init.ones_").unique().tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nn.init.orthogonal_", "unknown; known are nn.init.uniform_"),
        ("__import__('os').system", "unknown"),
        ("nn.init.uniform_,low=1", r'"low=1" is not understood; it takes a=..., b=...'),
        ("nn.init.uniform_,a=one", 'a="one" is not a number'),
        ("nn.init.uniform_,a=1,a=2", "sets a twice"),
        ("nn.init.constant_", "needs val="),
        ("nn.init.kaiming_normal_,mode=fan", "fan_in"),
    ],
)
def test_wrong_text_says_what_would_do(text, message):
    with pytest.raises(ValueError, match=message):
        parse_init(text)


def test_values_do_not_depend_on_the_cut_of_a_table(monkeypatch):
    monkeypatch.setattr(init, "CHUNK_ROWS", 7)
    whole = table("nn.init.normal_", rows=30)
    for first, rows in [(0, 10), (10, 13), (23, 7), (0, 1), (29, 1), (5, 0)]:
        part = torch.empty(rows, 8)
        init_rows_(part, name="t", rows=30, init=parse_init("nn.init.normal_"), seed=0, first_row=first)
        assert torch.equal(part, whole[first : first + rows])


def test_name_and_seed_decide_and_the_global_generator_does_not():
    torch.manual_seed(1)
    a = table("")
    torch.manual_seed(2)
    assert torch.equal(a, table(""))
    assert not torch.equal(a, table("", name="u"))
    assert not torch.equal(a, table("", seed=1))
