"""Losses: hand numbers first, then properties, then references with every gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses import LOSSES, Loss, LossSum
from rec.losses.custom import build_custom
from rec.losses.focal import binary_focal
from rec.losses.retrieval import RETRIEVAL_LOSSES
from rec.protos import loss_pb2
from rec.protos.custom_pb2 import Custom


def build(text: str) -> Loss:
    config = text_format.Parse(text, loss_pb2.LossConfig())
    return LOSSES.build(getattr(config, config.WhichOneof("loss")))


def sums(loss: Loss, logits: Tensor, labels: Tensor, weights: Tensor | None = None, **branches: Tensor) -> LossSum:
    return loss.sums(logits, labels, weights, predictions={"logits": logits, **branches})


LOGITS = torch.tensor([0.0, math.log(3.0)])  # probabilities 1/2 and 3/4


def test_bce_by_hand():
    # -log 1/2 = .6931 for a positive; -log 1/4 = 1.3863 for a negative
    got = build("binary_cross_entropy {}")(LOGITS, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(got, torch.tensor([math.log(2), math.log(4)]))


def test_bce_smoothing_by_hand():
    # s = 0.1: label 1 -> .95; -(.95 log .75 + .05 log .25)
    got = build("binary_cross_entropy { label_smoothing: 0.1 }")(LOGITS[1:], torch.tensor([1.0]))
    assert got.item() == pytest.approx(-(0.95 * math.log(0.75) + 0.05 * math.log(0.25)), rel=1e-6)


def test_bce_of_extreme_logits_is_finite():
    got = build("binary_cross_entropy {}")(torch.tensor([200.0, -200.0]), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(got, torch.tensor([200.0, 200.0]))


def test_focal_by_hand():
    # p_t = 1/2, positive: .25 * (1/2)^2 * log 2;  p_t = 1/4, negative: .75 * (3/4)^2 * log 4
    got = build("binary_focal_loss { gamma: 2 alpha: 0.25 }")(LOGITS, torch.tensor([1.0, 0.0]))
    expected = torch.tensor([0.25 * 0.25 * math.log(2), 0.75 * 0.5625 * math.log(4)])
    torch.testing.assert_close(got, expected)


def test_focal_without_focus_is_half_the_bce():
    logits = torch.randn(64, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(64) % 2).float()
    got = build("binary_focal_loss { gamma: 0 alpha: 0.5 }")(logits, labels)
    torch.testing.assert_close(got, build("binary_cross_entropy {}")(logits, labels) / 2)


def test_focal_gradient_is_finite_at_extreme_logits():
    logits = torch.tensor([-120.0, 120.0, 0.0], requires_grad=True)
    build("binary_focal_loss { gamma: 0.5 }")(logits, torch.tensor([0.0, 1.0, 1.0])).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_focal_gradient_equals_finite_differences():
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    labels = (torch.arange(8) % 2).double()
    assert torch.autograd.gradcheck(lambda x: binary_focal(x, labels, gamma=2.0, alpha=0.3), logits)


def test_softmax_by_hand():
    # softmax of (0, log 3) is (1/4, 3/4); smoothing .2 of 2 classes: .9 and .1
    logits = torch.tensor([[0.0, math.log(3.0)]])
    plain = build("softmax_cross_entropy {}")(logits, torch.tensor([0.0]))
    smooth = build("softmax_cross_entropy { label_smoothing: 0.2 }")(logits, torch.tensor([0.0]))
    assert plain.item() == pytest.approx(math.log(4), rel=1e-6)
    assert smooth.item() == pytest.approx(-(0.9 * math.log(0.25) + 0.1 * math.log(0.75)), rel=1e-6)


def test_regression_by_hand():
    values, labels = torch.tensor([1.0, -2.0]), torch.tensor([3.0, -2.5])
    torch.testing.assert_close(build("l2_loss {}")(values, labels), torch.tensor([4.0, 0.25]))
    torch.testing.assert_close(build("l1_loss {}")(values, labels), torch.tensor([2.0, 0.5]))


def test_weighted_mean_by_hand():
    # (3 * log 2 + 1 * log 4) / 4
    part = sums(build("binary_cross_entropy {}"), LOGITS, torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0]))
    assert part.mean().item() == pytest.approx((3 * math.log(2) + math.log(4)) / 4, rel=1e-6)


@pytest.mark.parametrize("text", ["binary_cross_entropy {}", "binary_focal_loss {}", "tri_bce {}", "l2_loss {}"])
def test_scale_depends_on_neither_batch_size_nor_weight_scale(text: str):
    generator = torch.Generator().manual_seed(0)
    logits, deep, shallow = torch.randn(3, 8, generator=generator)
    labels, weights = (torch.arange(8) % 2).float(), torch.rand(8, generator=generator)

    def mean(times: int, scale: float) -> float:
        repeat = [x.repeat(times) for x in (logits, labels, weights * scale)]
        branches = {"logits_deep": deep.repeat(times), "logits_shallow": shallow.repeat(times)}
        return sums(build(text), *repeat, **branches).mean().item()

    assert mean(5, 1.0) == pytest.approx(mean(1, 1.0), rel=1e-6)
    assert mean(1, 100.0) == pytest.approx(mean(1, 1.0), rel=1e-6)


def test_micro_batches_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits, labels, weights = torch.randn(9, generator=generator), (torch.arange(9) % 3 == 0).float(), torch.rand(9)
    loss = build("binary_cross_entropy {}")
    whole = sums(loss, logits, labels, weights).mean()
    parts = [sums(loss, logits[i], labels[i], weights[i]) for i in (slice(0, 2), slice(2, 9))]
    total = sum(p.denominator for p in parts)
    torch.testing.assert_close(sum(p.mean(total) for p in parts), whole)


def test_all_weights_zero_is_zero_with_a_zero_gradient():
    logits = torch.randn(4, requires_grad=True)
    mean = sums(build("binary_cross_entropy {}"), logits, torch.ones(4), torch.zeros(4)).mean()
    mean.backward()
    assert mean.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4))


def test_bfloat16_logits_are_judged_in_float32():
    logits = torch.tensor([3.0, -3.0], dtype=torch.bfloat16)
    part = sums(build("binary_cross_entropy {}"), logits, torch.tensor([1.0, 0.0]))
    assert part.numerator.dtype == torch.float32
    assert part.mean().item() == pytest.approx(math.log1p(math.exp(-3)), rel=1e-5)  # bf16: 2e-3 off


class TestTriBCE:
    labels = torch.tensor([1.0, 0.0, 1.0, 1.0])

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        # deep is worse than the mean, shallow is better: only deep has a weight
        deep = torch.tensor([-1.0, 1.0, 0.5, -0.5], requires_grad=True)
        shallow = torch.tensor([2.0, -2.0, 1.5, 1.0], requires_grad=True)
        return (deep + shallow) / 2, deep, shallow

    def test_by_its_equation(self):
        logits, deep, shallow = self.parts()
        got = sums(build("tri_bce {}"), logits, self.labels, logits_deep=deep, logits_shallow=shallow).mean()
        main, d, s = (F.binary_cross_entropy_with_logits(x, self.labels) for x in (logits, deep, shallow))
        assert d > main > s
        torch.testing.assert_close(got, main + (d - main) * d)

    @pytest.mark.parametrize("detach", [False, True])
    def test_gradients_of_both_forms(self, detach: bool):
        logits, deep, shallow = self.parts()
        loss = build(f"tri_bce {{ detach_aux_weights: {str(detach).lower()} }}")
        sums(loss, logits, self.labels, logits_deep=deep, logits_shallow=shallow).mean().backward()
        got = deep.grad.clone(), shallow.grad.clone()
        logits, deep, shallow = self.parts()
        main, d = (F.binary_cross_entropy_with_logits(x, self.labels) for x in (logits, deep))
        w = (d - main).detach() if detach else d - main
        (main + w * d).backward()
        torch.testing.assert_close(got, (deep.grad, shallow.grad))

    def test_a_missing_branch_is_named(self):
        logits, deep, _ = self.parts()
        with pytest.raises(ConfigError, match='no "logits_shallow" for tri_bce; it returns: logits, logits_deep'):
            sums(build("tri_bce {}"), logits, self.labels, logits_deep=deep)

    def test_other_branches_by_name(self):
        logits, deep, shallow = self.parts()
        named = sums(build('tri_bce { branches: "a" branches: "b" }'), logits, self.labels, a=deep, b=shallow)
        usual = sums(build("tri_bce {}"), logits, self.labels, logits_deep=deep, logits_shallow=shallow)
        torch.testing.assert_close(named.mean(), usual.mean())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("binary_cross_entropy { label_smoothing: 1.5 }", "label_smoothing is 1.5, expected 0 <= s < 1"),
        ("softmax_cross_entropy { label_smoothing: -0.1 }", "label_smoothing is -0.1"),
        ("binary_focal_loss { gamma: -1 }", "gamma is -1, expected >= 0"),
        ("binary_focal_loss { alpha: 2 }", "alpha is 2, expected 0 <= alpha <= 1"),
    ],
)
def test_wrong_settings_are_told(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build(text)


def test_every_available_loss_is_registered():
    from rec.protos import options_pb2

    for field in loss_pb2.LossConfig.DESCRIPTOR.oneofs_by_name["loss"].fields:
        if field.GetOptions().Extensions[options_pb2.unsupported] or field.name == "custom_loss":
            continue
        message = field.message_type.full_name
        known = {t.DESCRIPTOR.full_name for registry in (LOSSES, RETRIEVAL_LOSSES) for t in registry.types()}
        assert message in known, field.name


# Found by import path below.
def hinge(logits: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    return torch.relu(margin - (2 * labels - 1) * logits)


def mean_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    return hinge(logits, labels).mean()


class Quantile:
    kind = "regression"

    def __init__(self, *, q: float) -> None:
        self.q = q

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return torch.maximum(self.q * (labels - logits), (self.q - 1) * (labels - logits))


def custom(name: str, num_class: int = 1, **kwargs: float) -> Loss:
    config = Custom(class_path=f"{__name__}:{name}")
    config.kwargs.update(kwargs)
    return build_custom(config, num_class=num_class)


def test_custom_function_with_its_arguments():
    loss = custom("hinge", margin=2)
    assert loss.kind == "binary"
    torch.testing.assert_close(loss(torch.tensor([0.5]), torch.tensor([1.0])), torch.tensor([1.5]))


def test_custom_class_says_its_kind():
    loss = custom("Quantile", q=0.9)
    assert loss.kind == "regression"
    torch.testing.assert_close(loss(torch.tensor([0.0]), torch.tensor([1.0])), torch.tensor([0.9]))


def test_custom_loss_that_reduces_is_refused():
    with pytest.raises(ConfigError, match=r"returned shape \[\] for 2 rows.*leave the mean to the trainer"):
        custom("mean_hinge")(LOGITS, torch.tensor([1.0, 0.0]))


def test_custom_loss_with_an_unknown_argument_is_told():
    with pytest.raises(ConfigError, match="Quantile"):
        custom("Quantile", quantile=0.9)


def test_a_term_of_the_model_is_its_weighted_mean_times_its_weight():
    term = LOSSES.build(loss_pb2.PredictionLoss(prediction="next_click", weight=0.5))
    predictions = {"next_click": torch.tensor([1.0, 3.0]), "gate": torch.zeros(2, 4)}
    labels, weights = torch.zeros(2), torch.tensor([3.0, 1.0])
    # (3 * 1 + 1 * 3) / 4 * 0.5
    assert term.sums(labels, labels, weights, predictions=predictions).mean().item() == 0.75
    with pytest.raises(ConfigError, match='no "gate" of one number a row; such are: "next_click"'):
        LOSSES.build(loss_pb2.PredictionLoss(prediction="gate")).sums(labels, labels, None, predictions=predictions)


def test_huber_by_hand():
    # errors .5 and 2 and -3, delta 1: .125, 1 (2 - .5), 1 (3 - .5); delta 4: the squares halved
    logits, labels = torch.tensor([0.5, 2.0, -3.0]), torch.zeros(3)
    torch.testing.assert_close(build("huber_loss {}")(logits, labels), torch.tensor([0.125, 1.5, 2.5]))
    torch.testing.assert_close(build("huber_loss { delta: 4 }")(logits, labels), torch.tensor([0.125, 2.0, 4.5]))
    with pytest.raises(ConfigError, match="delta is 0, expected > 0"):
        build("huber_loss { delta: 0 }")
