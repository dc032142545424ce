from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rec.modules.activation import Dice, activation


def test_dice_at_the_start_is_x_times_the_sigmoid_of_the_standardised_x() -> None:
    # Columns 1, 3 standardise to -1, 1; sigmoid(1) = 0.731059, sigmoid(-1) = 0.268941.
    out = Dice(1)(torch.tensor([[1.0], [3.0]]))
    torch.testing.assert_close(out, torch.tensor([[0.268941], [3 * 0.731059]]), rtol=1e-5, atol=0)


def test_dice_with_alpha_one_is_the_identity() -> None:
    dice = Dice(3)
    nn.init.ones_(dice.alpha)
    x = torch.randn(5, 3)
    torch.testing.assert_close(dice(x), x)


def test_dice_evaluates_with_running_statistics() -> None:
    dice = Dice(1).eval()
    # Fresh statistics are mean 0, variance 1.
    assert dice(torch.tensor([[2.0]])).item() == pytest.approx(2 / (1 + math.exp(-2)), rel=1e-6)


@pytest.mark.parametrize("name", ["nn.ReLU", "ReLU", "torch.nn.ReLU", " nn.ReLU ", "nn.ReLU()"])
def test_prefix_space_and_empty_call_do_not_matter(name: str) -> None:
    assert type(activation(name, 3)) is nn.ReLU


def test_arguments_are_read_as_literals() -> None:
    assert activation("nn.LeakyReLU(negative_slope=0.2)", 3).negative_slope == 0.2
    assert activation("nn.GELU(approximate='tanh')", 3).approximate == "tanh"
    assert activation("nn.Softplus(beta=2, threshold=10)", 3).threshold == 10


def test_empty_is_none() -> None:
    assert type(activation("", 3)) is nn.Identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nn.Linear", "is unknown; known: ReLU"),
        ("__import__('os').system('true')", "is unknown"),
        ("nn.LeakyReLU(slope=0.2)", r'"slope=0.2" is not understood; it takes negative_slope=\.\.\.'),
        ("nn.ReLU(inplace=False)", "it takes no arguments"),
        ("nn.LeakyReLU(negative_slope=2**99)", "is not a number"),
    ],
)
def test_what_is_not_on_the_list_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        activation(name, 3)
