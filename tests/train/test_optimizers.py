import pytest
import torch
from google.protobuf import text_format
from torch import nn

from rec.config.errors import ConfigError
from rec.protos import optimizer_pb2 as pb
from rec.train.optimizers import DenseOptimizers


def params(**values):
    return {n: nn.Parameter(torch.tensor(v, dtype=torch.float32)) for n, v in values.items()}


def dense(text, parameters, **kwargs):
    return DenseOptimizers(parameters, text_format.Parse(text, pb.DenseOptimizer()), **kwargs)


def one_step(text, value=1.0, grad=0.5, steps=1):
    p = params(w=[[value]])
    opt = dense(text, p)
    for _ in range(steps):
        p["w"].grad = torch.tensor([[grad]])
        opt.step()
    return p["w"].item()


@pytest.mark.parametrize("fused", ["", "fused: true", "fused: false"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # w - lr g
        ("sgd_optimizer { lr: 0.1 momentum: 0 %s }", 1 - 0.1 * 0.5),
        # g + 0.2 w = 0.7
        ("sgd_optimizer { lr: 0.1 momentum: 0 weight_decay: 0.2 %s }", 1 - 0.07),
        # w - lr g / (sqrt(acc + g^2) + eps), acc = 0.75
        ("adagrad_optimizer { lr: 0.1 initial_accumulator_value: 0.75 %s }", 1 - 0.1 * 0.5),
        # the first step of Adam is lr * sign(g)
        ("adam_optimizer { lr: 0.1 %s }", 1 - 0.1),
        # decoupled: w (1 - lr wd) - lr
        ("adamw_optimizer { lr: 0.1 weight_decay: 0.5 %s }", 0.95 - 0.1),
    ],
)
def test_first_step_by_hand(text, expected, fused):
    # 1e-6: float32, and the kernels round in another order
    assert one_step(text % fused) == pytest.approx(expected, abs=1e-6)


def test_adadelta_and_rmsprop_first_step_by_hand():
    # RMSprop: avg = 0.01 * 0.25, step = lr g / sqrt(avg)
    assert one_step("rmsprop_optimizer { lr: 0.1 }") == pytest.approx(1 - 0.1 * 0.5 / 0.05, abs=1e-5)
    # Adadelta: sqrt(0 + eps) / sqrt(0.05 * 0.25 + eps) * g
    delta = (1e-6**0.5) / ((0.05 * 0.25 + 1e-6) ** 0.5) * 0.5
    assert one_step("adadelta_optimizer { lr: 1.0 }") == pytest.approx(1 - delta, abs=1e-6)


def test_momentum_carries_over():
    # v1 = .5, v2 = .9 * .5 + .5 = .95
    assert one_step("sgd_optimizer { lr: 0.1 momentum: 0.9 }", steps=2) == pytest.approx(1 - 0.05 - 0.095, abs=1e-6)


@pytest.mark.parametrize("extra", ["", "decay_vectors: true"])
def test_a_parameter_that_its_module_keeps_out_never_decays(extra):
    p = params(a_log=[[1.0]], d=[1.0], w=[[1.0]])
    p["a_log"]._no_weight_decay = p["d"]._no_weight_decay = True
    opt = dense(f"adam_optimizer {{ lr: 0.1 weight_decay: 0.5 }} {extra}", p)
    for q in p.values():
        q.grad = torch.zeros_like(q)
    opt.step()
    # Adam's first step on a gradient that is decay alone is lr.
    assert {n: round(q.item(), 5) for n, q in p.items()} == {"a_log": 1.0, "d": 1.0, "w": 0.9}


def test_biases_and_norms_do_not_decay_unless_asked():
    text = "sgd_optimizer { lr: 0.1 momentum: 0 weight_decay: 1.0 } %s"
    for extra, bias in (("", 1.0), ("decay_vectors: true", 0.9)):
        p = params(w=[[1.0]], b=[1.0])
        opt = dense(text % extra, p)
        for q in p.values():
            q.grad = torch.zeros_like(q)
        opt.step()
        assert p["w"].item() == pytest.approx(0.9)
        assert p["b"].item() == pytest.approx(bias)


def test_parts_have_their_own_optimizer_and_schedule():
    p = params(**{"model.a.weight": [[1.0]], "model.final.weight": [[1.0]]})
    opt = dense(
        """sgd_optimizer { lr: 0.1 momentum: 0 }
        part_optimizers {
          regex_pattern: "model\\\\.final\\\\..*" sgd_optimizer { lr: 1.0 momentum: 0 }
          exponential_decay_learning_rate { decay_size: 1 decay_factor: 0.5 }
        }""",
        p,
    )
    for step in range(2):
        opt.set_lr(step, 0)
        for q in p.values():
            q.grad = torch.ones_like(q)
        opt.step()
    assert p["model.a.weight"].item() == pytest.approx(1 - 0.2)
    assert p["model.final.weight"].item() == pytest.approx(1 - 1 - 0.5)
    assert opt.learning_rates() == {"dense": 0.1, "model\\.final\\..*": 0.5}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("final", "matches no dense parameter"), ("(", "no regular expression")],
)
def test_a_pattern_that_matches_nothing_is_refused(pattern, message):
    text = f'sgd_optimizer {{ lr: 0.1 }} part_optimizers {{ regex_pattern: "{pattern}" sgd_optimizer {{ lr: 1 }} }}'
    with pytest.raises(ConfigError, match=message):
        dense(text, params(**{"model.final.weight": [[1.0]]}))


def test_a_pattern_after_one_that_took_all_is_refused():
    part = 'part_optimizers { regex_pattern: ".*" sgd_optimizer { lr: 1 } }'
    with pytest.raises(ConfigError, match="an earlier pattern took"):
        dense(f"sgd_optimizer {{ lr: 0.1 }} {part} {part}", params(w=[[1.0]]))


def test_no_optimizer_and_a_wrong_one_are_config_errors():
    with pytest.raises(ConfigError, match="sets no optimizer"):
        dense("", params(w=[[1.0]]))
    with pytest.raises(ConfigError, match=r"[Ii]nvalid learning rate"):
        dense("adam_optimizer { lr: -1 }", params(w=[[1.0]]))


@pytest.mark.parametrize(
    "text",
    [
        "sgd_optimizer { lr: 0.1 }",
        "adagrad_optimizer { lr: 0.1 }",
        "adam_optimizer { lr: 0.1 amsgrad: true }",
        "adamw_optimizer { lr: 0.1 }",
        "adadelta_optimizer { lr: 0.1 }",
        "rmsprop_optimizer { lr: 0.1 }",
    ],
)
def test_state_goes_out_and_in_bit_equal(text):
    g = torch.Generator().manual_seed(0)
    grads = [torch.randn(2, 3, generator=g) for _ in range(4)]

    def run(opt, p, gs):
        for grad in gs:
            p["w"].grad = grad.clone()
            opt.step()

    whole = params(w=[[1.0, 2, 3], [4, 5, 6]])
    run(dense(text, whole), whole, grads)

    half = params(w=[[1.0, 2, 3], [4, 5, 6]])
    first = dense(text, half)
    run(first, half, grads[:2])
    other = params(w=half["w"].tolist())
    second = dense(text, other)
    second.load_state({n: t.clone() for n, t in first.state().items()})
    run(second, other, grads[2:])
    assert torch.equal(other["w"], whole["w"])


def test_foreign_state_is_refused():
    opt = dense("adam_optimizer { lr: 0.1 }", params(w=[[1.0]]))
    with pytest.raises(KeyError, match="unknown parameters: x"):
        opt.load_state({"x/exp_avg": torch.zeros(1)})
    with pytest.raises(KeyError, match="has shape"):
        opt.load_state({"w/exp_avg": torch.zeros(2, 2)})


def test_a_negative_weight_decay_is_told():
    text = "adamw_optimizer { lr: 0.1 weight_decay: -0.1 }"
    with pytest.raises(ConfigError, match=r"AdamWOptimizer has weight_decay -0.1; give 0 or more"):
        dense(text, params(w=[[1.0]]))
