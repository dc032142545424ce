from __future__ import annotations

import pytest
import torch

from rec.modules.field_attention import FieldAttention
from tests.modules.golden import fill, outcome, wave


def test_two_fields_by_hand() -> None:
    attention = FieldAttention(1, layer_num=1, num_heads=1, attention_dim=1, use_residual=False)
    layer = attention.layers[0]
    with torch.no_grad():
        for linear, weight in ((layer.query, 1.0), (layer.key, 1.0), (layer.value, 10.0)):
            linear.weight.fill_(weight)
    # Fields 1 and 2: scores [[1, 2], [2, 4]]; softmax rows [.268941, .731059], [.119203, .880797];
    # values 10 and 20.
    out = attention(torch.tensor([[[1.0], [2.0]]]))
    torch.testing.assert_close(out, torch.tensor([[[17.31059], [18.80797]]]))


def test_scale_divides_by_the_root_of_the_heads_width() -> None:
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    plain, scaled = (FieldAttention(6, layer_num=1, attention_dim=8, use_scale=s) for s in (False, True))
    scaled.load_state_dict(plain.state_dict())
    # Two heads of width 4: half the query is the whole scale.
    with torch.no_grad():
        plain.layers[0].query.weight.mul_(0.5)
    torch.testing.assert_close(plain(x), scaled(x))


def test_permuting_fields_permutes_outputs() -> None:
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    attention, order = FieldAttention(6), [2, 0, 3, 1]
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-5, atol=1e-6)


def test_residual_needs_a_matrix_only_where_widths_differ() -> None:
    names = [n for n, _ in FieldAttention(6, layer_num=2, attention_dim=8).named_parameters()]
    assert "layers.0.residual.weight" in names
    assert "layers.1.residual.weight" not in names


def test_no_layers_is_the_identity() -> None:
    attention, x = FieldAttention(6, layer_num=0), torch.randn(2, 3, 6)
    assert attention.out_features == 6
    assert torch.equal(attention(x), x)


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match=r"^attention_dim 10 is not divisible by num_heads 4"):
        FieldAttention(6, attention_dim=10, num_heads=4)


# FuxiCTR 2.3 MultiHeadSelfAttention, two layers of two heads on four rows of three fields of width 6
# (agreed exactly when these were taken).
FUXICTR = {
    (8, False): [19.23730169886762, 9.761395607553638, -5.118757119369389, 98.80306768382533],
    (8, True): [15.71442889850271, 7.223579958886402, 7.715582579909569, 48.941866981027715],
    (6, False): [33.419332660885175, 32.000178250874704, 79.48542815487983, 365.81735051760836],
}


@pytest.mark.parametrize("setting", FUXICTR, ids=str)
def test_equals_fuxictr(setting: tuple[int, bool]) -> None:
    attention_dim, extras = setting
    net = FieldAttention(
        6, layer_num=2, num_heads=2, attention_dim=attention_dim, use_scale=extras, use_ln=extras
    ).double()
    fill(net)
    x = wave(4, 3, 6)
    out = net(x)
    out.square().sum().backward()
    assert outcome(out, x.grad) == pytest.approx(FUXICTR[setting], rel=1e-9)
