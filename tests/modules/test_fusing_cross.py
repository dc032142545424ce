from __future__ import annotations

import pytest
import torch

from rec.modules.fusing_cross import FusingCross, chunked_heads
from tests.modules.golden import fill, outcome, wave


def test_chunks_put_all_first_halves_before_all_second_halves() -> None:
    # Two fields of width 4, one head: a = 0 1 2 3, b = 4 5 6 7.
    x = torch.arange(8.0).view(1, 2, 4)
    assert chunked_heads(x, 1).tolist() == [[[0, 1, 4, 5, 2, 3, 6, 7]]]


def test_heads_cut_each_field_before_the_halves() -> None:
    # Two heads of width 2: head 0 has a = 0 1, b = 4 5.
    x = torch.arange(8.0).view(1, 2, 4)
    assert chunked_heads(x, 2).tolist() == [[[0, 4, 1, 5], [2, 6, 3, 7]]]


def cross(exponential: bool, layers: int) -> FusingCross:
    net = FusingCross(2, exponential=exponential, cross_num=layers, dropout_ratio=0.0, use_ln=False)
    with torch.no_grad():
        for weight, bias in zip(net.weights, net.biases, strict=True):
            weight.weight.copy_(torch.tensor([[1.0, 1.0]]))
            bias.copy_(torch.tensor([0.5, 0.0]))
        net.head.weight.copy_(torch.tensor([[1.0, 10.0]]))
        net.head.bias.fill_(0.25)
    return net


def test_one_layer_by_hand() -> None:
    # x = [1, 2]: c = 3, mask = relu(3) = 3, [c, c mask] = [3, 9], + b = [3.5, 9], times x + x = [4.5, 20]
    # logit = 4.5 + 200 + 0.25
    x = torch.tensor([[[1.0, 2.0]]])
    for exponential in (True, False):
        assert cross(exponential, 1)(x).tolist() == [[204.75]]


def test_two_layers_differ_in_their_base() -> None:
    # Second layer on x1 = [4.5, 20]: c = 24.5, [24.5, 600.25] + b = [25, 600.25].
    # deep: x1 * that + x1 = [117, 12025]; shallow: x0 * that + x1 = [29.5, 1220.5]
    x = torch.tensor([[[1.0, 2.0]]])
    assert cross(True, 2)(x).item() == 117 + 120250 + 0.25
    assert cross(False, 2)(x).item() == 29.5 + 12205 + 0.25


def test_a_negative_c_is_masked() -> None:
    # x = [-1, -2]: c = -3, mask 0, [-3, 0] + b = [-2.5, 0], times x + x = [1.5, -2]
    assert cross(True, 1)(torch.tensor([[[-1.0, -2.0]]])).item() == 1.5 - 20 + 0.25


def test_heads_share_weights_and_their_logits_are_averaged() -> None:
    net = cross(True, 1)
    one, two = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0]]])
    both = net(torch.cat([one, two], dim=1))
    torch.testing.assert_close(both, (net(one) + net(two)) / 2)


def test_biases_start_uniform_up_to_the_limit() -> None:
    torch.manual_seed(0)
    kwargs = {"exponential": True, "cross_num": 1, "dropout_ratio": 0.0}
    bias = FusingCross(10_000, **kwargs).biases[0]
    assert bias.min() >= 0
    assert bias.max() <= 1
    assert bias.mean().item() == pytest.approx(0.5, abs=0.02)
    assert FusingCross(4, **kwargs, bias_init_max=0.0).biases[0].abs().max() == 0


# github.com/salmon1802/FCN, src/DCNv3.py, on the weights of `fill` and five rows of three fields of
# width 8 (outputs and input gradients agreed within 3e-13 when these were taken).
OFFICIAL = {
    (True, 1, False, True): [19.393605412577415, 80.06415791511881, 115.00133188052263, 11195.389343066525],
    (False, 1, False, True): [18.949949451153476, 71.7066141179068, 111.16639203294814, 5681.023554088963],
    (True, 2, True, True): [0.5266101511772135, 0.0902293191103983, -0.43202627674671457, 0.5020692828646565],
    (False, 2, True, True): [-0.29142361124344485, 0.016799093990201745, -0.00783134838047811, 0.039482461330472535],
    (True, 2, False, False): [-16.217370344303085, 86.24735634646201, 406.91054848243914, 555825.5750844979],
    (False, 2, False, False): [-4.136983094036752, 5.933652982032646, -7.101747035914416, 249.21581275451646],
}


@pytest.mark.parametrize("setting", OFFICIAL, ids=str)
def test_equals_the_official_code(setting: tuple[bool, int, bool, bool]) -> None:
    exponential, num_heads, use_bn, use_ln = setting
    net = FusingCross(
        24 // num_heads,
        num_heads=num_heads,
        exponential=exponential,
        cross_num=3,
        dropout_ratio=0.0,
        use_ln=use_ln,
        use_bn=use_bn,
    ).double()
    fill(net)
    x = wave(5, 3, 8)
    out = net(chunked_heads(x, num_heads))
    out.square().sum().backward()
    assert outcome(out, x.grad) == pytest.approx(OFFICIAL[setting], rel=1e-9)
