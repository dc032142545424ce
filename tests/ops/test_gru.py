"""The attentional GRU against a hand-computed step, torch's own GRU, and a loop over rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rec.export.script import libraries, script, trace
from rec.ops.gru import attentional_gru, exported

LENGTHS = [[2, 0, 3], [0, 0], [1], [], [4, 7, 7, 1]]


def inputs(lengths: list[int], width: int = 4, seed: int = 0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    steps = sum(lengths)
    tensors = [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((steps, 3 * width),)]
    tensors += [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((3 * width, width), (3 * width,))]
    tensors.append(torch.rand(steps, generator=g, dtype=torch.float64))
    return *(t.requires_grad_() for t in tensors), torch.tensor(lengths)


def test_two_steps_by_hand() -> None:
    # Width 1, U_r = U_u = 0, U_n = 1, b_n = 1. Gates of both steps: r = sigmoid(0) = 1/2, u = sigmoid(log 3) = 3/4.
    # a = 1: n = tanh(0 + 1/2 (0 + 1)) = tanh(.5) = .4621172, h = 3/4 n = .3465879
    # a = 1/3: n = tanh(.1 + 1/2 (h + 1)) = tanh(.7732939) = .6488158, u = 1/4: h = .3465879 + (n - h) / 4 = .4221449
    gates = torch.tensor([[0.0, math.log(3), 0.0], [0.0, math.log(3), 0.1]])
    weight, bias = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([0.0, 0.0, 1.0])
    states = attentional_gru(gates, weight, bias, torch.tensor([1.0, 1 / 3]), torch.tensor([2]))
    torch.testing.assert_close(states, torch.tensor([[0.3465879], [0.4221449]]))


def test_without_attention_it_is_torchs_gru() -> None:
    torch.manual_seed(0)
    theirs = nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    x = torch.randn(1, 6, 3, dtype=torch.float64)
    # Their z keeps the old state: the update gate is 1 - z, so its weights change their sign.
    sign = torch.ones(12, dtype=torch.float64)
    sign[4:8] = -1
    gates = (x[0] @ theirs.weight_ih_l0.t() + theirs.bias_ih_l0) * sign
    weight, bias = theirs.weight_hh_l0 * sign.unsqueeze(1), theirs.bias_hh_l0 * sign
    states = attentional_gru(gates, weight, bias, torch.ones(6, dtype=torch.float64), torch.tensor([6]))
    torch.testing.assert_close(states, theirs(x)[0][0])


def test_an_attention_of_0_keeps_the_state() -> None:
    gates, weight, bias, _, lengths = inputs([3])
    attention = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    states = attentional_gru(gates, weight, bias, attention, lengths)
    assert torch.equal(states[1], states[0])
    assert torch.equal(states[2], states[0])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_rows_do_not_see_each_other(lengths: list[int]) -> None:
    gates, weight, bias, attention, size = inputs(lengths)
    states = attentional_gru(gates, weight, bias, attention, size)
    alone = [
        attentional_gru(g, weight, bias, a, torch.tensor([len(g)]))
        for g, a in zip(gates.split(lengths), attention.split(lengths), strict=True)
    ]
    torch.testing.assert_close(states, torch.cat([states[:0], *alone]))


def test_its_gradients_are_those_of_differences() -> None:
    *tensors, lengths = inputs([2, 0, 3], width=2)
    torch.autograd.gradcheck(lambda *t: attentional_gru(*t, lengths), tensors)


class Layer(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"h": attentional_gru(x["gates"], self.weight, self.bias, x["attention"], x["lengths"])}


def test_exported_equals_eager_for_other_lengths() -> None:
    gates, weight, bias, attention, lengths = inputs([2, 0, 3])
    layer = Layer(weight, bias).eval()
    scripted = script(trace(layer))
    assert libraries(scripted) == []
    for other in LENGTHS:
        gates, _, _, attention, lengths = inputs(other, seed=3)
        x = {"gates": gates.detach(), "attention": attention.detach(), "lengths": lengths}
        torch.testing.assert_close(scripted(x)["h"], layer(x)["h"])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_loop_that_torch_export_takes_is_the_same(lengths: list[int]) -> None:
    tensors = [t.detach() for t in inputs(lengths)]
    torch.testing.assert_close(exported.while_loop_gru(*tensors), attentional_gru(*tensors))


def test_torch_export_takes_it_for_other_lengths() -> None:
    gates, weight, bias, attention, lengths = inputs([2, 0, 3])
    layer = Layer(weight, bias).eval()
    graph = trace(layer)
    x = {"gates": gates.detach(), "attention": attention.detach(), "lengths": lengths}
    rows, steps = torch.export.Dim("rows"), torch.export.Dim("steps")
    dims = {"gates": {0: steps}, "attention": {0: steps}, "lengths": {0: rows}}
    with torch.no_grad():
        program = torch.export.export(graph, (x,), dynamic_shapes=(dims,), strict=False)
    gates, _, _, attention, lengths = inputs([4, 7, 7, 1], seed=3)
    other = {"gates": gates.detach(), "attention": attention.detach(), "lengths": lengths}
    torch.testing.assert_close(program.module()(other)["h"], layer(other)["h"])
