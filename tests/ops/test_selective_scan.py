"""The selective scan: by hand, against a loop over rows in float64, its kernels against the reference."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rec.export.program import export_program
from rec.export.script import libraries, script, trace
from rec.ops import native as kernels
from rec.ops.selective_scan import reference, scan_with_states, selective_scan

compiled = pytest.mark.skipif(
    not kernels.available(), reason="no compiled kernels: python setup.py build_ext --inplace"
)
# Steps of each row: none, more than one chunk of the backward (64), exactly one, one.
LENGTHS = [[3, 0, 5], [1], [0], [], [64, 1, 65], [200, 0, 7]]
# Channels: fewer than a vector, one vector of AVX2, of AVX-512, some and a rest. States: compiled in, and others.
SIZES = [(3, 1), (8, 16), (16, 8), (37, 5), (64, 32)]


def inputs(lengths: list[int], channels: int, states: int, dtype=torch.float32, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    n = sum(lengths)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    tensors = [
        draw(n, channels),
        nn.functional.softplus(draw(n, channels) - 2),
        -torch.exp(0.5 * draw(channels, states)) * torch.arange(1, states + 1),
        draw(n, states),
        draw(n, states),
        draw(channels),
    ]
    return [t.to(dtype) for t in tensors]


def by_rows(u, delta, A, B, C, D, lengths: list[int]) -> Tensor:
    """Row after row, step after step, as the equations are written."""
    out, n = [], 0
    for length in lengths:
        h = torch.zeros_like(A)
        for _ in range(length):
            h = torch.exp(delta[n].unsqueeze(1) * A) * h + (delta[n] * u[n]).unsqueeze(1) * B[n]
            out.append(h @ C[n] + D * u[n])
            n += 1
    return torch.stack(out) if out else u


def gradients(function, tensors: list[Tensor], lengths, up: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [t.clone().requires_grad_() for t in tensors]
    y = function(*leaves, lengths)
    if y.numel() == 0:
        return y, []
    return y, list(torch.autograd.grad(y, leaves, up.to(y.dtype)))


def test_two_steps_by_hand() -> None:
    # One channel, one state: delta = ln 2, A = -1, so a state halves at each step.
    # h_1 = ln2 * 3 * 1 = 3 ln2, y_1 = 2 h_1 + 10 * 3; h_2 = h_1 / 2 + ln2 * 5 * 4 = 21.5 ln2, y_2 = -h_2 + 50.
    ln2 = math.log(2)
    y = selective_scan(
        torch.tensor([[3.0], [5.0]]),
        torch.full((2, 1), ln2),
        torch.tensor([[-1.0]]),
        torch.tensor([[1.0], [4.0]]),
        torch.tensor([[2.0], [-1.0]]),
        torch.tensor([10.0]),
        torch.tensor([2]),
    )
    # float32, one unit in the last place of numbers below 64.
    assert y.flatten().tolist() == pytest.approx([6 * ln2 + 30, 50 - 21.5 * ln2], abs=4e-6)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_reference_equals_a_loop_over_rows_with_every_gradient(lengths: list[int]) -> None:
    tensors = inputs(lengths, 5, 3, torch.float64)
    up = torch.randn(sum(lengths), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    want, wanted = gradients(by_rows, tensors, lengths, up)
    got, found = gradients(reference.selective_scan, tensors, torch.tensor(lengths, dtype=torch.int64), up)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_the_reference_passes_gradcheck() -> None:
    lengths = torch.tensor([2, 0, 3])
    tensors = [t.requires_grad_() for t in inputs([2, 0, 3], 2, 2, torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: reference.selective_scan(*t, lengths), tensors)


@compiled
@pytest.mark.parametrize("most", [kernels.PLAIN, kernels.AVX2, kernels.AVX512])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_kernels_equal_the_reference_with_every_gradient(lengths, sizes, most) -> None:
    if kernels.choose(most) != most:
        kernels.choose(kernels.AVX512)
        pytest.skip("this processor has no such instructions")
    try:
        tensors = inputs(lengths, *sizes)
        up = torch.randn(sum(lengths), sizes[0], generator=torch.Generator().manual_seed(1))
        size = torch.tensor(lengths, dtype=torch.int32)
        got, found = gradients(selective_scan, tensors, size, up)
    finally:
        kernels.choose(kernels.AVX512)
    exact, wanted = gradients(reference.selective_scan, [t.double() for t in tensors], size, up)
    if got.numel():
        assert "NativeScan" in type(got.grad_fn).__name__
    # float32 sums of up to 200 steps times 64 channels against float64: relative to the largest of the tensor.
    for a, b in zip([got, *found], [exact, *wanted], strict=True):
        if b.numel():
            assert (a - b).abs().max() <= 2e-6 * b.abs().max()


@compiled
def test_parts_of_wider_tensors_and_expanded_gradients_are_taken_as_they_lie() -> None:
    u, delta, A, B, C, D = inputs([4, 2], 6, 3)
    size = torch.tensor([4, 2])
    wide = torch.cat([u, delta, B, C], dim=1)
    parts = wide.clone().requires_grad_()
    leaves = [t.clone().requires_grad_() for t in (u, delta, B, C)]
    v, d, b, c = parts.split([6, 6, 3, 3], dim=1)
    selective_scan(v, d, A.t().contiguous().t(), b, c, D, size).sum().backward()
    y = selective_scan(leaves[0], leaves[1], A, leaves[2], leaves[3], D, size)
    y.backward(torch.ones_like(y))
    assert torch.equal(parts.grad, torch.cat([t.grad for t in leaves], dim=1))


@compiled
def test_nothing_depends_on_the_number_of_threads() -> None:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 60, (90,), generator=g)
    tensors = inputs(lengths.tolist(), 160, 2)
    up = torch.randn(int(lengths.sum()), 160, generator=g)
    assert len(kernels.pieces_of(kernels.offsets_of(lengths, up), 160)) > 2
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y, found = gradients(selective_scan, tensors, lengths, up)
            answers.append([y.detach(), *found])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))


def test_the_future_and_other_rows_change_nothing() -> None:
    # Bit-equal: what comes later is not in the sum, not multiplied by 0.
    tensors = inputs([6, 4], 9, 4)
    size = torch.tensor([6, 4])
    before = selective_scan(*tensors, size)
    for i in (0, 1, 3, 4):
        tensors[i][4] = tensors[i][4] * 3 + 1
    after = selective_scan(*tensors, size)
    assert torch.equal(after[:4], before[:4])
    assert torch.equal(after[6:], before[6:])
    assert not torch.equal(after[4], before[4])
    assert not torch.equal(after[5], before[5])


def test_a_row_alone_is_its_row_of_the_batch() -> None:
    u, delta, A, B, C, D = inputs([5, 0, 3], 9, 4)
    whole = selective_scan(u, delta, A, B, C, D, torch.tensor([5, 0, 3]))
    alone = selective_scan(u[5:], delta[5:], A, B[5:], C[5:], D, torch.tensor([3]))
    assert torch.equal(alone, whole[5:])


def test_the_order_of_the_steps_matters() -> None:
    u, delta, A, B, C, D = inputs([5], 4, 3)
    size = torch.tensor([5])
    y = selective_scan(u, delta, A, B, C, D, size)
    back = selective_scan(u.flip(0), delta.flip(0), A, B.flip(0), C.flip(0), D, size).flip(0)
    assert (y - back).abs().max() > 0.1


def test_long_rows_of_fast_decay_stay_finite() -> None:
    # The parallel form exp(-cumsum(delta A)) is infinite here: 200 * 0.69 * 16 = 2200.
    ones = torch.ones(200, 2)
    y = selective_scan(
        ones,
        ones * 0.69,
        torch.full((2, 3), -16.0),
        torch.ones(200, 3),
        torch.ones(200, 3),
        torch.zeros(2),
        torch.tensor([200]),
    )
    # h settles at delta / (1 - exp(-11.04)), three states of it.
    torch.testing.assert_close(y[-1], torch.full((2,), 3 * 0.69 / (1 - math.exp(-11.04))))


def test_states_go_on_where_they_stopped() -> None:
    tensors = inputs([5, 3, 0], 9, 4)
    size = torch.tensor([5, 3, 0])
    whole, final = scan_with_states(*tensors, size)
    torch.testing.assert_close(whole, selective_scan(*tensors, size))

    def rows(*which: int) -> list[Tensor]:
        chosen = torch.tensor(which)
        return [t if i in (2, 5) else t[chosen] for i, t in enumerate(tensors)]

    first, middle = scan_with_states(*rows(0, 1, 5, 6), torch.tensor([2, 2, 0]))
    second, end = scan_with_states(*rows(2, 3, 4, 7), torch.tensor([3, 1, 0]), middle)
    assert torch.equal(torch.cat([first[:2], second[:3], first[2:], second[3:]]), whole)
    assert torch.equal(end, final)
    assert not final[2].any()
    exact, exact_end = reference.scan_with_states(
        *[t.double() for t in tensors], size, torch.zeros(3, 9, 4, dtype=torch.float64)
    )
    torch.testing.assert_close(whole.double(), exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(final.double(), exact_end, rtol=1e-5, atol=1e-6)


def test_half_precision_is_scanned_in_float32() -> None:
    tensors = inputs([5, 3], 9, 4)
    size = torch.tensor([5, 3])
    half = [t.bfloat16() for t in tensors]
    assert torch.equal(selective_scan(*half, size), selective_scan(*[t.float() for t in half], size))


@compiled
def test_lengths_that_do_not_fit_the_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths sum to 5, there are 4 steps"):
        selective_scan(*inputs([4], 2, 2), torch.tensor([5]))


@compiled
def test_the_polynomial_of_two_to_the_x_is_within_two_units_in_the_last_place() -> None:
    x = torch.cat([torch.linspace(-126, 127.99, 200_001), torch.arange(-126.0, 128), torch.tensor([-1e-9, 1e-9])])
    y = torch.empty_like(x)
    kernels.call("rec_exp2", x.numel(), x, y)
    exact = torch.exp2(x.double())
    spacing = torch.exp2(torch.floor(x.double()) - 23)
    assert ((y - exact).abs() / spacing).max() < 2
    whole = x == x.round()
    assert torch.equal(y[whole].double(), exact[whole])


@compiled
def test_two_to_the_x_has_its_limits() -> None:
    x = torch.tensor([-math.inf, -1e30, -127.0, 128.0, 1e30, math.inf, math.nan])
    y = torch.empty_like(x)
    kernels.call("rec_exp2", x.numel(), x, y)
    assert y[:6].tolist() == [0, 0, 0, math.inf, math.inf, math.inf]
    assert y[6].isnan()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton: pip install triton==3.7.1 (691 MB)")
def test_triton_kernels_equal_the_reference_under_its_interpreter() -> None:
    # In a process of its own: Triton reads the variable when it is imported.
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "tests.ops.triton_scan", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    # float32 sums of up to 40 steps, relative to the largest of each tensor.
    assert float(done.stdout) < 2e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_triton_kernels_equal_the_reference_on_a_gpu() -> None:
    from tests.ops.triton_scan import worst

    assert worst("cuda") < 2e-6


class Scan(nn.Module):
    """Inputs by name, as an exported model has them."""

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        y = selective_scan(x["u"], x["delta"], x["A"], x["B"], x["C"], x["D"], x["lengths"])
        return {"y": y}


def named(lengths: list[int]) -> dict[str, Tensor]:
    values = dict(zip("u delta A B C D".split(), inputs(lengths, 5, 3), strict=True))
    return values | {"lengths": torch.tensor(lengths, dtype=torch.int64)}


def test_exported_it_is_plain_aten_and_equals_eager_for_any_size(tmp_path) -> None:
    graph = trace(Scan())
    scripted = script(graph)
    assert libraries(scripted) == []
    for lengths in LENGTHS:
        x = named(lengths)
        # Another exponential and other orders of summation in float32.
        torch.testing.assert_close(scripted(x)["y"], Scan()(x)["y"], rtol=1e-5, atol=1e-5)
        assert torch.equal(scripted(x)["y"], graph(x)["y"])


class Block(nn.Module):
    """A and D are its own, the rest comes by name."""

    def __init__(self) -> None:
        super().__init__()
        x = named([1])
        self.A, self.D = nn.Buffer(x["A"]), nn.Buffer(x["D"])

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": selective_scan(x["u"], x["delta"], self.A, x["B"], x["C"], self.D, x["lengths"])}


@pytest.mark.slow
def test_a_program_of_torch_export_takes_any_size() -> None:
    def data(lengths: list[int]) -> dict[str, Tensor]:
        return {name: value for name, value in named(lengths).items() if name not in "AD"}

    # Of the traced graph, as the exporter has it.
    program = export_program(trace(Block()), data([3, 0, 5])).module()
    for lengths in LENGTHS:
        x = data(lengths)
        torch.testing.assert_close(program(x)["y"], Block()(x)["y"], rtol=1e-5, atol=1e-5)
