"""Sparse optimizers on touched rows against torch.optim and against formulas."""

from __future__ import annotations

import logging

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.registry import oneof
from rec.embedding.lazy import coalesce
from rec.embedding.rules import RULES, SparseRule
from rec.protos import optimizer_pb2


def rule(text: str) -> SparseRule:
    return RULES.build(oneof(text_format.Parse(text, optimizer_pb2.SparseOptimizer()), "optimizer"))


def start(r: SparseRule, rows: int, dim: int) -> dict[str, Tensor]:
    return {n: torch.full((rows, dim), r.initial(n)) for n in r.element_states} | {
        n: torch.full((rows,), r.initial(n)) for n in r.row_states
    }


def gradients(steps: int, rows: int = 6, dim: int = 8) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(rows, dim, generator=g) for _ in range(steps)]


TORCH = [
    ("sgd_optimizer { lr: 0.1 }", lambda p: torch.optim.SGD(p, lr=0.1)),
    ("sgd_optimizer { lr: 0.1 weight_decay: 0.2 }", lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2)),
    ("adagrad_optimizer { lr: 0.1 }", lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8)),
    (
        "adagrad_optimizer { lr: 0.1 initial_accumulator_value: 0.5 weight_decay: 0.2 }",
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8, initial_accumulator_value=0.5, weight_decay=0.2),
    ),
    ("adam_optimizer { lr: 0.1 beta1: 0.8 beta2: 0.9 }", lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.9))),
    ("adam_optimizer { lr: 0.1 weight_decay: 0.2 }", lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2)),
    (
        "adam_optimizer { lr: 0.1 weight_decay: 0.2 weight_decay_mode: DECOUPLE }",
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2),
    ),
    (
        "adadelta_optimizer { lr: 0.5 rho: 0.8 weight_decay: 0.2 }",
        lambda p: torch.optim.Adadelta(p, lr=0.5, rho=0.8, weight_decay=0.2),
    ),
    (
        "rmsprop_optimizer { lr: 0.1 alpha: 0.8 weight_decay: 0.2 }",
        lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.8, weight_decay=0.2),
    ),
]


@pytest.mark.parametrize(("text", "make"), TORCH, ids=[t for t, _ in TORCH])
def test_where_all_rows_are_touched_it_is_the_dense_optimizer(text, make):
    r = rule(text)
    w = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    p = torch.nn.Parameter(w.clone())
    dense = make([p])
    state = start(r, 6, 8)
    for i, g in enumerate(gradients(4)):
        r.step(w, g.clone(), state, lr=r.lr, step=i + 1, dim=8)
        p.grad = g.clone()
        dense.step()
        # Same formula, other order of fused operations: last bits.
        torch.testing.assert_close(w, p.detach(), atol=1e-6, rtol=1e-5)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def test_rowwise_adagrad_by_formula():
    r = rule("rowwise_adagrad_optimizer { lr: 0.1 }")
    w = torch.zeros(6, 8)
    state = start(r, 6, 8)
    total, want = torch.zeros(6), torch.zeros(6, 8)
    for i, g in enumerate(gradients(3)):
        r.step(w, g.clone(), state, lr=0.1, step=i + 1, dim=8)
        total += (g * g).mean(1)
        want -= 0.1 * g / (total.sqrt() + 1e-8).unsqueeze(1)
        torch.testing.assert_close(w, want)


def test_partial_rowwise_adam_by_formula():
    r = rule("partial_rowwise_adam_optimizer { lr: 0.1 beta1: 0.8 beta2: 0.9 }")
    w, want = torch.zeros(6, 8), torch.zeros(6, 8)
    state = start(r, 6, 8)
    m, v = torch.zeros(6, 8), torch.zeros(6, 1)
    for i, g in enumerate(gradients(3), 1):
        r.step(w, g.clone(), state, lr=0.1, step=i, dim=8)
        m = 0.8 * m + 0.2 * g
        v = 0.9 * v + 0.1 * (g * g).mean(1, keepdim=True)
        want -= 0.1 * (m / (1 - 0.8**i)) / ((v / (1 - 0.9**i)).sqrt() + 1e-8)
        torch.testing.assert_close(w, want)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("mode", ["L2", "DECOUPLE"])
def test_lamb_by_formula(partial, mode):
    name = "partial_rowwise_lamb_optimizer" if partial else "lamb_optimizer"
    r = rule(f"{name} {{ lr: 0.1 beta1: 0.8 beta2: 0.9 weight_decay: 0.3 weight_decay_mode: {mode} }}")
    w = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    want = w.clone()
    state = start(r, 6, 8)
    m, v = torch.zeros(6, 8), torch.zeros(6, 1 if partial else 8)
    for i, g in enumerate(gradients(3), 1):
        r.step(w, g.clone(), state, lr=0.1, step=i, dim=8)
        g = g + 0.3 * want if mode == "L2" else g
        square = (g * g).mean(1, keepdim=True) if partial else g * g
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * square
        direction = (m / (1 - 0.8**i)) / ((v / (1 - 0.9**i)).sqrt() + 1e-8)
        direction = direction + 0.3 * want if mode == "DECOUPLE" else direction
        want = want - 0.1 * want.norm(dim=1, keepdim=True) * unit(direction)
        torch.testing.assert_close(w, want, atol=1e-5, rtol=1e-5)


def test_a_row_of_zeros_can_leave_zero_under_lamb_and_lars():
    for name in ("lamb_optimizer", "lars_sgd_optimizer"):
        r = rule(f"{name} {{ lr: 0.1 }}")
        w = torch.zeros(2, 4)
        r.step(w, torch.ones(2, 4), start(r, 2, 4), lr=0.1, step=1, dim=4)
        torch.testing.assert_close(w, torch.full((2, 4), -0.1))


def test_lars_by_formula():
    r = rule("lars_sgd_optimizer { lr: 0.1 momentum: 0.8 weight_decay: 0.3 }")
    w = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    want, buffer = w.clone(), torch.zeros(6, 8)
    state = start(r, 6, 8)
    for i, g in enumerate(gradients(3), 1):
        r.step(w, g.clone(), state, lr=0.1, step=i, dim=8)
        w_norm = want.norm(dim=1, keepdim=True)
        rate = 0.1 * 0.001 * w_norm / (g.norm(dim=1, keepdim=True) + 0.3 * w_norm)
        buffer = 0.8 * buffer + rate * (g + 0.3 * want)
        want = want - buffer
        torch.testing.assert_close(w, want)


def test_elapsed_decay_makes_up_for_the_steps_that_did_not_touch_a_row():
    r = rule("adagrad_optimizer { lr: 0.1 weight_decay: 0.01 weight_decay_mode: L2_ELAPSED }")
    w, want = torch.full((1, 2), 2.0), torch.full((1, 2), 2.0)
    state = start(r, 1, 2)
    total = torch.zeros(1, 2)
    # Touched in steps 1, 2 and 7: one, one and five times the decay.
    for step, times in [(1, 1), (2, 1), (7, 5)]:
        r.step(w, torch.full((1, 2), 0.5), state, lr=0.1, step=step, dim=2)
        g = 0.5 + times * 0.01 * want
        total += g * g
        want = want - 0.1 * g / (total.sqrt() + 1e-8)
        torch.testing.assert_close(w, want)
    with pytest.raises(ConfigError, match="L2_ELAPSED does not go with FusedSGDOptimizer"):
        rule("sgd_optimizer { lr: 0.1 weight_decay: 0.1 weight_decay_mode: L2_ELAPSED }")


def test_weight_decay_without_a_mode_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        r = rule("rowwise_adagrad_optimizer { lr: 0.1 weight_decay: 0.1 }")
    assert not r.decays
    assert "weight_decay 0.1 has no effect: weight_decay_mode is NONE" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sgd_optimizer { lr: -1 }", "lr -1.0 must not be negative"),
        ("sgd_optimizer { lr: 1 weight_decay: -1 }", "weight_decay -1.0 must not be negative"),
        ("sgd_optimizer { lr: 1 gradient_clipping: true max_gradient: 0 }", "max_gradient 0.0 must be positive"),
        ("adagrad_optimizer { lr: 1 initial_accumulator_value: -1 }", "initial_accumulator_value -1.0"),
    ],
)
def test_wrong_settings(text, message):
    with pytest.raises(ConfigError, match=message):
        rule(text)


def test_every_member_of_the_message_has_a_rule():
    for member in optimizer_pb2.SparseOptimizer.DESCRIPTOR.oneofs_by_name["optimizer"].fields:
        message = optimizer_pb2.SparseOptimizer()
        getattr(message, member.name).SetInParent()
        assert isinstance(RULES.build(oneof(message, "optimizer")), SparseRule)


def test_equal_rows_are_summed_in_order():
    rows = torch.tensor([7, 2, 7, 2, 5])
    values = torch.tensor([[1.0], [10.0], [100.0], [1000.0], [10000.0]])
    touched, sums = coalesce(rows, values, None, None)
    assert touched.tolist() == [2, 5, 7]
    assert sums.flatten().tolist() == [1010, 10000, 101]
    # Weighted, and two ids that get the same row of the gradient.
    touched, sums = coalesce(rows, values, torch.tensor([0, 0, 1, 1, 4]), torch.tensor([1.0, 2.0, 3.0, 4.0, 0.5]))
    assert sums.flatten().tolist() == [2 * 1 + 4 * 10, 5000, 1 + 3 * 10]


def test_coalescing_repeats_bit_by_bit_on_one_and_two_threads():
    g = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 500, (200_000,), generator=g)
    values = torch.randn(200_000, 16, generator=g)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            answers.append(coalesce(rows, values, None, None)[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[1], answers[2])


def test_l2_elapsed_decays_once_for_every_step_since_the_last_touch():
    # w = 2, no gradient of the loss; touched at steps 1 and 4: gradients 0.5 * 2 * 1, then 0.5 * w * 3.
    r = rule("adagrad_optimizer { lr: 0.1 weight_decay: 0.5 weight_decay_mode: L2_ELAPSED }")
    w, state = torch.full((1, 1), 2.0), start(r, 1, 1)
    r.step(w, torch.zeros(1, 1), state, lr=0.1, step=1, dim=1)
    # sum = 1, w = 2 - 0.1 * 1 / 1
    torch.testing.assert_close(w, torch.tensor([[1.9]]))
    r.step(w, torch.zeros(1, 1), state, lr=0.1, step=4, dim=1)
    g = 0.5 * 1.9 * 3
    torch.testing.assert_close(w, torch.tensor([[1.9 - 0.1 * g / (1 + g * g) ** 0.5]]))
    assert state["last_step"].tolist() == [4.0]


def test_l2_elapsed_is_l2_where_every_step_touches_the_row():
    a = rule("adam_optimizer { lr: 0.1 weight_decay: 0.5 weight_decay_mode: L2_ELAPSED }")
    b = rule("adam_optimizer { lr: 0.1 weight_decay: 0.5 weight_decay_mode: L2 }")
    w_a, w_b = torch.ones(6, 8), torch.ones(6, 8)
    s_a, s_b = start(a, 6, 8), start(b, 6, 8)
    for step, g in enumerate(gradients(5), 1):
        a.step(w_a, g.clone(), s_a, lr=0.1, step=step, dim=8)
        b.step(w_b, g.clone(), s_b, lr=0.1, step=step, dim=8)
    assert torch.equal(w_a, w_b)


def test_l2_elapsed_is_refused_where_steps_grow_with_gradients():
    with pytest.raises(ConfigError, match="overshoot"):
        rule("sgd_optimizer { lr: 0.1 weight_decay: 0.5 weight_decay_mode: L2_ELAPSED }")


@pytest.mark.parametrize("mode", ["L2", "DECOUPLE", "L2_ELAPSED", "L2_ALL_ROWS"])
def test_a_decay_mode_without_decay_is_warned_of(mode, caplog):
    with caplog.at_level(logging.WARNING):
        rule(f"adam_optimizer {{ lr: 0.1 weight_decay_mode: {mode} }}")
    assert f"weight_decay_mode {mode} has no effect: weight_decay is 0" in caplog.text
