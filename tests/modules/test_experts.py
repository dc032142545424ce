from __future__ import annotations

import torch

from rec.modules.experts import GatedExperts
from rec.modules.mlp import MLP


def test_two_experts_by_hand() -> None:
    experts = [MLP(1, hidden_units=[1]), MLP(1, hidden_units=[1])]
    mixture = GatedExperts(experts, [MLP(1), MLP(1)])
    with torch.no_grad():
        for expert, weight in zip(experts, (1.0, 10.0), strict=True):
            expert.layers[0].weight.fill_(weight)
        for gate, weights in zip(mixture.gates, ([0.0, 0.0], [0.0, 1.0]), strict=True):
            gate[1].weight.copy_(torch.tensor(weights).unsqueeze(1))
    # x = 1: experts 1 and 10; gates (.5, .5) and softmax(0, 1) = (.268941, .731059)
    first, second = mixture(torch.tensor([[1.0]]))
    torch.testing.assert_close(first, torch.tensor([[5.5]]))
    torch.testing.assert_close(second, torch.tensor([[7.579531]]))


def test_one_expert_is_that_expert() -> None:
    expert = MLP(3, hidden_units=[4])
    x = torch.randn(5, 3)
    (out,) = GatedExperts([expert], [MLP(3)])(x)
    torch.testing.assert_close(out, expert(x))


def test_without_tasks_there_is_nothing() -> None:
    assert GatedExperts([MLP(3, hidden_units=[4])], [])(torch.randn(2, 3)) == []
