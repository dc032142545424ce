"""Mamba's block and Mamba4Rec's layers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.export.script import libraries, script, trace
from rec.modules.mamba import Mamba4RecLayer, Mamba4RecLayers, MambaBlock
from rec.ops.jagged import append_row, row_at
from tests.modules.golden import fill, outcome, wave

LENGTHS = torch.tensor([3, 0, 7, 1])


def steps(width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(int(LENGTHS.sum()), width, generator=torch.Generator().manual_seed(seed))


def block(width: int = 8, **settings: int) -> MambaBlock:
    torch.manual_seed(0)
    return MambaBlock(width, **settings)


def test_one_step_by_hand() -> None:
    # D = E = S = R = 1, one tap: xi = 2x, z = 3x; xc = SiLU(4 xi + 1); delta, B, C = 5 xc, 6 xc, 7 xc;
    # h = Delta xc B; y = h C + D xc; out = 11 y SiLU(z).
    m = MambaBlock(1, d_state=1, d_conv=1, expand=1)
    with torch.no_grad():
        m.in_proj.weight.copy_(torch.tensor([[2.0], [3.0]]))
        m.conv1d.weight.fill_(4.0)
        m.conv1d.bias.fill_(1.0)
        m.x_proj.weight.copy_(torch.tensor([[5.0], [6.0], [7.0]]))
        m.dt_proj.weight.fill_(8.0)
        m.dt_proj.bias.fill_(9.0)
        m.D.fill_(10.0)
        m.out_proj.weight.fill_(11.0)

    def silu(x: float) -> float:
        return x / (1 + math.exp(-x))

    x = 0.1
    xc = silu(4 * 2 * x + 1)
    h = math.log1p(math.exp(8 * 5 * xc + 9)) * xc * 6 * xc
    want = 11 * (h * 7 * xc + 10 * xc) * silu(3 * x)
    assert m(torch.tensor([[x]]), torch.tensor([1])).item() == pytest.approx(want, rel=1e-6)


def test_the_block_has_the_parameters_of_the_official_code() -> None:
    # models.md: 9,920 for D 32 and S 16. Names as in state-spaces/mamba, modules/mamba_simple.py.
    shapes = {name: tuple(p.shape) for name, p in MambaBlock(32).named_parameters()}
    assert shapes == {
        "A_log": (64, 16),
        "D": (64,),
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (34, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "out_proj.weight": (32, 64),
    }
    assert sum(p.numel() for p in MambaBlock(32).parameters()) == 9920


def test_initial_values_are_the_official_ones() -> None:
    m = block(40)  # R = ceil(40 / 16) = 3
    assert torch.equal(m.A_log, torch.log(torch.arange(1.0, 17)).expand(80, 16))
    assert torch.equal(m.D, torch.ones(80))
    assert m.dt_proj.weight.abs().max() <= 3**-0.5
    delta = F.softplus(m.dt_proj.bias)
    assert delta.min() >= 0.001 * 0.999
    assert delta.max() <= 0.1 * 1.001
    # Log-uniform: half lies below the geometric mean.
    assert 0.3 < (delta < 0.01).float().mean() < 0.7


def test_rates_of_decay_are_kept_out_of_the_weight_decay() -> None:
    kept_out = {name for name, p in block().named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert kept_out == {"A_log", "D"}


@pytest.mark.parametrize(
    ("settings", "message"), [({"d_state": 0}, "d_state is 0"), ({"dt_rank": -1}, "dt_rank is -1")]
)
def test_settings_are_checked(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MambaBlock(8, **settings)


def test_output_and_gradient_of_mambapy() -> None:
    # mambapy 1.2.0, MambaBlock(MambaConfig(d_model=6, n_layers=1, d_state=3)) with `fill` in the order of our
    # parameters, on wave(2, 5, 6): `python -m tools.agreement mamba --golden`. It takes A_log to float32: 1e-7 of it.
    m = fill(MambaBlock(6, d_state=3).double())
    x = wave(2, 5, 6)
    y = m(x.flatten(0, 1), torch.tensor([5, 5]))
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert outcome(y, gradient) == pytest.approx(
        [0.132377525808, 0.167305254974, 0.00891536701029, 0.0185206888807], rel=1e-6
    )


def test_output_and_gradient_of_transformers_with_padding_on_the_left() -> None:
    # transformers 5.24.0, MambaMixer with attention_mask, the first row's first two steps padding; as above.
    m = fill(MambaBlock(6, d_state=3).double())
    x = wave(2, 5, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    y = m.forward_padded(x, mask)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert outcome(y, gradient) == pytest.approx(
        [0.0911829444208, 0.121959145176, 0.00322990988463, 0.00862350536123], rel=1e-6
    )


@pytest.mark.parametrize("make", [block, lambda: Mamba4RecLayers(8, num_layers=2, d_state=4, dropout=0.0)])
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(make) -> None:
    m = make()
    m(steps(), LENGTHS).square().sum().backward()
    for name, p in m.named_parameters():
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("make", [block, lambda: Mamba4RecLayers(8, num_layers=2, d_state=4).eval()])
def test_the_future_and_other_rows_change_nothing(make) -> None:
    m, x = make(), steps()
    before = m(x, LENGTHS)
    x[6] *= -1  # the fourth step of the third row
    after = m(x, LENGTHS)
    same = [0, 1, 2, 3, 4, 5, 10]
    assert torch.equal(after[same], before[same])
    for later in (6, 7, 8, 9):
        assert not torch.equal(after[later], before[later])


def test_a_row_alone_is_its_row_of_the_batch() -> None:
    m, x = block(), steps()
    # Products of other numbers of rows may be summed otherwise in float32.
    torch.testing.assert_close(m(x[3:10], torch.tensor([7])), m(x, LENGTHS)[3:10], rtol=1e-5, atol=1e-6)


def test_the_order_of_the_steps_matters() -> None:
    m, x = block(), steps()[:3]
    size = torch.tensor([3])
    assert (m(x.flip(0), size).flip(0) - m(x, size)).abs().max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side: str) -> None:
    m, x = block(), steps()
    want = m(x, LENGTHS)
    place = torch.arange(9).expand(4, 9)
    mask = place < LENGTHS.unsqueeze(1) if side == "right" else place >= 9 - LENGTHS.unsqueeze(1)
    padded = torch.full((4, 9, 8), 1e3)
    padded[mask] = x
    y = m.forward_padded(padded, mask)
    # The padding is not computed at all.
    assert torch.equal(y[mask], want)
    assert not y[~mask].any()


def test_a_step_more_equals_the_full_pass() -> None:
    m, x = block(), steps()
    state = m.first_state(4)
    whole, final = m.prefill(x, LENGTHS)
    torch.testing.assert_close(whole, m(x, LENGTHS), rtol=1e-5, atol=1e-6)
    # Row by row, from nothing.
    y, state = m.step(x[[0, 0, 3, 10]], state)
    torch.testing.assert_close(y[[0, 2, 3]], whole[[0, 3, 10]], rtol=1e-5, atol=1e-6)
    # From the end of the rows on.
    new = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    longer, lengths = append_row(x, LENGTHS, new)
    y, after = m.step(new, final)
    want, wanted = m.prefill(longer, lengths)
    torch.testing.assert_close(y, row_at(want, lengths, lengths - 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.conv_BKE, wanted.conv_BKE, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.ssm_BES, wanted.ssm_BES, rtol=1e-5, atol=1e-6)


def test_one_tap_has_no_steps_to_remember() -> None:
    m, x = block(d_conv=1), steps()
    _, state = m.prefill(x, LENGTHS)
    assert state.conv_BKE.shape == (4, 0, 16)
    y, _ = m.step(x[:4], state)
    assert y.shape == (4, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_scan_stays_in_float32_under_autocast(dtype: torch.dtype) -> None:
    m, x = block(), steps()
    with torch.autocast("cpu", dtype=dtype):
        half = m(x, LENGTHS)
        _, state = m.prefill(x, LENGTHS)
    assert half.dtype == dtype
    assert state.ssm_BES.dtype == torch.float32
    # bf16 has 8 bits: a few thousandths of products of order 0.1.
    torch.testing.assert_close(half.float(), m(x, LENGTHS), rtol=0.05, atol=0.01)
    half.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in m.parameters())


class Named(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.inner(x["steps"], x["lengths"])}


@pytest.mark.parametrize("make", [block, lambda: Mamba4RecLayers(8, num_layers=2, d_state=4)])
def test_exported_equals_eager(make) -> None:
    m = Named(make()).eval()
    scripted = script(trace(m))
    assert libraries(scripted) == []
    for lengths in (LENGTHS, LENGTHS[:2], LENGTHS[1:2], LENGTHS[:0]):
        x = {"steps": steps()[: int(lengths.sum())], "lengths": lengths}
        # Another exponential and other orders of summation in float32.
        torch.testing.assert_close(scripted(x)["y"], m(x)["y"], rtol=1e-5, atol=1e-6)


def recbole_layer(layer: Mamba4RecLayer, h: Tensor, size: Tensor) -> Tensor:
    """The layer as models.md 1.3 writes it."""
    first, _, _, second, _ = layer.feed_forward
    mixed = layer.mamba(h, size)
    h = F.layer_norm(mixed + h if layer.residual else mixed, h.shape[-1:], layer.norm.weight, layer.norm.bias, 1e-12)
    inner = F.linear(F.gelu(F.linear(h, first.weight, first.bias)), second.weight, second.bias)
    norm = layer.feed_forward_norm
    return F.layer_norm(inner + h, h.shape[-1:], norm.weight, norm.bias, 1e-12)


@pytest.mark.parametrize("residual", [True, False])
def test_a_layer_is_what_the_paper_writes(residual: bool) -> None:
    torch.manual_seed(0)
    layer, x = Mamba4RecLayer(8, d_state=4, residual=residual).eval(), steps()
    torch.testing.assert_close(layer(x, LENGTHS), recbole_layer(layer, x, LENGTHS), rtol=1e-5, atol=1e-6)


def test_only_a_single_layer_may_go_without_its_residual() -> None:
    settings = {"single_layer_residual": False, "d_state": 4}
    assert not Mamba4RecLayers(8, num_layers=1, **settings).layers[0].residual
    assert all(layer.residual for layer in Mamba4RecLayers(8, num_layers=2, **settings).layers)
    assert Mamba4RecLayers(8, d_state=4).layers[0].residual


def test_the_published_model_has_as_many_parameters() -> None:
    # models.md 1.3: 78,720 with 101 ids of width 64.
    assert sum(p.numel() for p in Mamba4RecLayers(64).parameters()) + 101 * 64 == 78_720


def test_recbole_init_overrides_every_linear() -> None:
    torch.manual_seed(0)
    made = Mamba4RecLayers(64, mamba_init="RECBOLE")
    mamba = made.layers[0].mamba
    assert not mamba.dt_proj.bias.any()
    for module in made.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert mamba.A_log[0, 1] == math.log(2)
    assert F.softplus(Mamba4RecLayers(64).layers[0].mamba.dt_proj.bias).max() <= 0.1 * 1.001


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"mamba_init": "mamba"}, 'mamba_init is "mamba"'),
    ],
)
def test_settings_of_the_layers_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mamba4RecLayers(8, **settings)
