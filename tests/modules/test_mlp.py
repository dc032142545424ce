from __future__ import annotations

import pytest
import torch
from torch import nn

from rec.modules.mlp import MLP


def test_two_layers_by_hand() -> None:
    mlp = MLP(2, hidden_units=[2, 1])
    first, _, second, _ = mlp.layers
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 1.0]]))
        first.bias.copy_(torch.tensor([0.5, -3.0]))
        second.weight.copy_(torch.tensor([[2.0, 10.0]]))
        second.bias.fill_(1.0)
    # [1, 1] -> [3.5, -3] -> relu [3.5, 0] -> 2 * 3.5 + 1 = 8
    assert mlp(torch.tensor([[1.0, 1.0]])).item() == 8.0


def test_no_layers_is_the_identity() -> None:
    mlp = MLP(3)
    x = torch.randn(2, 3)
    assert mlp(x) is x
    assert mlp.out_features == 3


def test_the_last_layer_is_activated_too() -> None:
    assert (MLP(4, hidden_units=[8])(torch.randn(16, 4)) >= 0).all()


def test_order_is_linear_norm_activation_dropout() -> None:
    layers = MLP(4, hidden_units=[3], use_bn=True, activation="nn.Tanh", dropout_ratio=[0.5]).layers
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm", "Tanh", "Dropout"]


def test_one_dropout_ratio_is_for_all_layers() -> None:
    ratios = [m.p for m in MLP(4, hidden_units=[3, 3], dropout_ratio=[0.2]).modules() if isinstance(m, nn.Dropout)]
    assert ratios == [0.2, 0.2]


def test_dropout_ratio_a_layer_and_zero_is_no_layer() -> None:
    mlp = MLP(4, hidden_units=[3, 3], dropout_ratio=[0.0, 0.3])
    assert [m.p for m in mlp.modules() if isinstance(m, nn.Dropout)] == [0.3]


def test_linear_layers_have_no_bias_before_batch_norm() -> None:
    mlp = MLP(4, hidden_units=[3], use_bn=True)
    assert "layers.0.bias" not in dict(mlp.named_parameters())
    assert "layers.1.bias" in dict(mlp.named_parameters())


def test_bias_false_leaves_all_out() -> None:
    assert [n for n, _ in MLP(4, hidden_units=[3, 2], bias=False).named_parameters()] == [
        "layers.0.weight",
        "layers.2.weight",
    ]


def test_weights_start_xavier_normal_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    layer = MLP(400, hidden_units=[600]).layers[0]
    # sqrt(2 / (400 + 600)); 240,000 draws: relative error of a standard deviation 0.0014.
    assert layer.weight.std().item() == pytest.approx(0.044721, rel=0.01)
    assert layer.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"use_bn": True, "use_ln": True}, "^use_ln and use_bn are both set"),
        ({"dropout_ratio": [0.1, 0.2, 0.3]}, "^dropout_ratio has 3 values for 2 hidden_units"),
        ({"dropout_ratio": [1.0]}, r"^dropout_ratio \[1.0, 1.0\] must lie in"),
        ({"activation": "nn.Relu"}, '^activation "nn.Relu" is unknown; known: ReLU'),
    ],
)
def test_contradictions_are_told_by_the_name_of_the_argument(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(4, hidden_units=[3, 2], **kwargs)


def test_a_width_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden_units \[3, 0\] must all be positive"):
        MLP(4, hidden_units=[3, 0])
