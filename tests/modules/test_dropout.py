import pytest
import torch
from torch import nn

from rec.modules.dropout import Dropout, scaled_mask


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
def test_a_share_p_is_zeroed_and_the_rest_scaled(p):
    torch.manual_seed(0)
    x = torch.full((1000, 1003), 2.0)
    y = Dropout(p)(x)
    kept = y != 0
    n = x.numel()
    # Five standard deviations of a binomial share; p itself is rounded to 2^-16 = 1.5e-5.
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / n) ** 0.5 + 1e-5)
    assert y[kept].unique().numel() == 1
    assert y.max().item() == pytest.approx(2 / (1 - p), rel=2e-4)


def test_elements_are_independent():
    torch.manual_seed(0)
    kept = (scaled_mask(torch.empty(1 << 20), 0.5) > 0).float() - 0.5
    # Correlation with the next elements, of the same draw and of others: 0 within five standard deviations.
    for lag in (1, 2, 3, 4, 5, 1024):
        assert abs((kept[lag:] * kept[:-lag]).mean().item() / 0.25) < 5 / 1024


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_shape_and_type(shape, dtype):
    x = torch.ones(shape, dtype=dtype)
    y = Dropout(0.5)(x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    assert set(y.flatten().tolist()) <= {0.0, 2.0}


def test_the_gradient_is_that_of_what_was_kept():
    x = torch.randn(40, 30, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad * x, y)


def test_the_seed_repeats_it_and_evaluation_leaves_all():
    dropout, x = Dropout(0.3), torch.randn(50)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert dropout.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(Dropout(1.0)(x), torch.zeros(50))
    assert isinstance(dropout, nn.Dropout)
