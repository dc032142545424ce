import itertools
from dataclasses import replace

import pytest
import torch
from toys import ROWS, batch_of, config, data, network, tasks

from rec.config.errors import ConfigError
from rec.data.batch import Batch
from rec.losses import LossSum
from rec.train import state
from rec.train.errors import TrainingError
from rec.train.optimizers import DenseOptimizers
from rec.train.step import TrainStep

CPU = torch.device("cpu")


class Losses:
    """As much of a task as a step asks for; the subclass says its losses."""

    def denominators(self, batch):
        return None

    def training_loss(self, predictions, batch, *, step):
        return self.loss(predictions, batch)

    def remember(self, predictions, batch):
        pass


def make(extra="", seed=0, task_list=None, **kwargs):
    cfg = config(extra)
    net = network(seed, **kwargs)
    dense = DenseOptimizers(state.dense_parameters(net), cfg.train_config.dense_optimizer)
    step = TrainStep(net, task_list or tasks(cfg), dense, config=cfg.train_config, device=CPU)
    return net, step


def weights(net):
    return {n: t.clone() for n, t in state.network_tensors(net).items()}


def assert_close(a, b, atol):
    assert a.keys() == b.keys()
    for n in a:
        torch.testing.assert_close(a[n], b[n], rtol=0, atol=atol, msg=lambda m, n=n: f"{n}: {m}")


def parts(sizes, source=None):
    source = source or data()
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [batch_of(torch.arange(a, b), source) for a, b in itertools.pairwise(starts)]


def test_the_loss_falls():
    _, step = make()
    losses = [float(step(parts([ROWS]), step=i).loss) for i in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_two_steps_equal_plain_torch():
    net, step = make("train_config { dense_optimizer { sgd_optimizer { lr: 0.1 momentum: 0 } } }")
    ref = network()
    source = data()
    for i in range(2):
        batch = batch_of(torch.arange(i * 8, i * 8 + 8), source)
        step([batch], step=i)
        groups = ref.embedding(batch.features)
        logits = ref.model(groups)["logits"]
        w = batch.weights["weight"]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels["label"], reduction="none")
        ref.zero_grad()
        ((loss * w).sum() / w.sum()).backward()
        with torch.no_grad():
            for p in ref.model.parameters():
                p -= 0.1 * p.grad
    assert_close(weights(net), weights(ref), atol=1e-7)


@pytest.mark.parametrize("sizes", [[16, 16, 16, 16], [20, 30, 14], [32, 31, 1]])
def test_accumulation_equals_one_large_batch(sizes):
    (whole, a), (cut, b) = make(), make()
    a(parts([ROWS]), step=1)
    result = b(parts(sizes), step=1)
    # 1e-6: sums in another order, then Adam's first step of +-lr
    assert_close(weights(cut), weights(whole), atol=1e-6)
    assert len(result.predictions) == len(sizes)
    assert cut.embedding.lookups == 1


def test_accumulation_is_exact_for_losses_with_denominators_of_their_own():
    class Two(Losses):
        """Two losses, one over rows with label 1 only."""

        def loss(self, predictions, batch):
            logits, y = predictions["logits"], batch.labels["label"]
            return {
                "a": LossSum((logits**2).sum(), torch.tensor(float(len(y)))),
                "b": LossSum((torch.sigmoid(logits) * y).sum(), y.sum()),
            }

    (whole, a), (cut, b) = make(task_list=[Two()]), make(task_list=[Two()])
    first, second = a(parts([ROWS]), step=1), b(parts([40, 24]), step=1)
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-6, atol=0)
    assert_close(weights(cut), weights(whole), atol=1e-6)


def test_denominators_that_are_told_need_no_stand_in():
    class Told(Losses):
        """Its predictions have rows of their own, so those of one micro-batch cannot stand for those of another."""

        def __init__(self):
            self.seen = []

        def loss(self, predictions, batch):
            self.seen.append(len(predictions["logits"]))
            return {"told": LossSum((predictions["logits"] ** 2).sum(), batch.labels["label"].sum())}

        def denominators(self, batch):
            return {"told": batch.labels["label"].sum()}

    (whole, a), (cut, b) = make(task_list=[Told()]), make(task_list=[Told()])
    first, second = a(parts([ROWS]), step=1), b(parts([40, 24]), step=1)
    assert (a.tasks[0].seen, b.tasks[0].seen) == ([ROWS], [40, 24])  # once for each micro-batch
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-6, atol=0)
    assert_close(weights(cut), weights(whole), atol=1e-6)


def test_a_denominator_that_depends_on_predictions_is_refused_under_accumulation():
    class Odd(Losses):
        def loss(self, predictions, batch):
            logits = predictions["logits"]
            return {"odd": LossSum((logits**2).sum(), logits.detach().abs().sum())}

    _, step = make(task_list=[Odd()])
    with pytest.raises(TrainingError, match="depends on the predictions"):
        step(parts([32, 32]), step=1)


def test_jagged_sequences_are_cut_by_their_lengths():
    from rec.train.micro import join_gradients, split_groups

    lengths = torch.tensor([2, 0, 3, 1])
    rows = torch.arange(6.0)[:, None].requires_grad_()
    groups = {"h.sequence": rows * 1.0, "h.lengths": lengths, "deep": torch.arange(4.0)[:, None]}
    cut = split_groups(groups, [1, 3])
    assert cut[0]["h.sequence"].tolist() == [[0.0], [1.0]]
    assert cut[1]["h.sequence"].tolist() == [[2.0], [3.0], [4.0], [5.0]]
    assert not cut[0]["deep"].requires_grad
    (cut[1]["h.sequence"] * 3).sum().backward()  # the first micro-batch does not use it
    outputs, grads = join_gradients(groups, cut)
    torch.autograd.backward(outputs, grads)
    assert rows.grad[:, 0].tolist() == [0, 0, 3, 3, 3, 3]


def test_clipping_by_norm_and_by_value():
    net, step = make("train_config { grad_clipping { clipping_type: 'norm' max_gradient: 0.01 } }")
    result = step(parts([ROWS]), step=1)
    norm = torch.stack([p.grad.norm() for p in net.model.parameters()]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
    assert float(result.norm) > 0.01
    net, step = make("train_config { grad_clipping { clipping_type: 'value' max_gradient: 0.001 } }")
    step(parts([ROWS]), step=1)
    largest = max(float(p.grad.abs().max()) for p in net.model.parameters())
    assert largest == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grad_clipping { clipping_type: 'L2' }", "clipping_type 'L2'"),
        ("grad_clipping { clipping_type: 'norm' max_gradient: 0 }", "expected more than 0"),
        ("mixed_precision: 'BF17'", "mixed_precision 'BF17'"),
        ("mixed_precision: 'FP16' grad_scaler { backoff_factor: 2 }", "between 0 and 1"),
    ],
)
def test_wrong_settings_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        make(f"train_config {{ {text} }}")


@pytest.mark.parametrize("sizes", [[ROWS], [40, 24]])
@pytest.mark.parametrize(("precision", "atol"), [("BF16", 3e-3), ("FP16", 1e-3)])
def test_mixed_precision_stays_near_float32(precision, atol, sizes):
    sgd = "dense_optimizer { sgd_optimizer { lr: 0.1 momentum: 0 } }"
    (full, a), (half, b) = (
        make(f"train_config {{ {sgd} }}"),
        make(f'train_config {{ {sgd} mixed_precision: "{precision}" }}'),
    )
    before = weights(full)
    a(parts([ROWS]), step=1)
    result = b(parts(sizes), step=1)
    assert result.predictions[0][1]["logits"].dtype in (torch.bfloat16, torch.float16)
    assert all(t.dtype == torch.float32 for t in weights(half).values())
    dense = [n for n in before if n.startswith("model/")]
    # atol: 8 (11) bits of mantissa on gradients of about 0.1, times lr
    assert_close({n: weights(half)[n] for n in dense}, {n: weights(full)[n] for n in dense}, atol=atol)
    assert any(not torch.equal(weights(half)[n], before[n]) for n in dense)


def test_fp16_overflow_leaves_tables_and_weights_alone_and_halves_the_scale():
    net, step = make('train_config { mixed_precision: "FP16" grad_scaler { init_scale: 1e30 } }')
    before = weights(net)
    result = step(parts([ROWS]), step=1)
    assert result.skipped
    assert step.scaler.scale == pytest.approx(5e29)
    assert_close(weights(net), before, atol=0)


@pytest.mark.parametrize(("scale", "expected"), [(4, [40, 24]), (1e30, [])])
def test_tasks_remember_micro_batches_of_steps_that_were_done(scale, expected):
    class Remembering(Losses):
        def __init__(self):
            self.sizes = []

        def loss(self, predictions, batch):
            return {"squares": LossSum((predictions["logits"] ** 2).sum(), torch.tensor(float(batch.size)))}

        def remember(self, predictions, batch):
            assert not predictions["logits"].requires_grad
            self.sizes.append(batch.size)

    task = Remembering()
    text = f'train_config {{ mixed_precision: "FP16" grad_scaler {{ init_scale: {scale} }} }}'
    _, step = make(text, task_list=[task])
    filler = replace(parts([8])[0], filler=True)
    step([*parts([40, 24]), filler], step=1)
    assert task.sizes == expected


def test_the_fp16_scale_grows_after_good_steps_and_gives_up_after_too_many_bad_ones():
    _, step = make('train_config { mixed_precision: "FP16" grad_scaler { init_scale: 4 growth_interval: 2 } }')
    for i in range(4):
        step(parts([ROWS]), step=i)
    assert step.scaler.scale == 16
    for i in range(99):
        step.scaler.update(False, i)
    with pytest.raises(TrainingError, match="overflowed 100 times in a row"):
        step.scaler.update(False, 99)


def test_a_loss_that_is_no_number_stops_before_anything_changes():
    net, step = make()
    before = weights(net)
    bad = parts([8])[0]
    bad.features["price.values"][3] = float("nan")
    with pytest.raises(TrainingError, match=r"not finite at step 7 \(loss_binary_cross_entropy = nan\); try"):
        step([bad], step=7)
    assert_close(weights(net), before, atol=0)


def test_fillers_count_nothing():
    (one, a), (two, b) = make(), make()
    real = parts([ROWS])
    filler = Batch(**{**real[0].__dict__, "filler": True})
    a(real, step=1)
    result = b([*real, filler], step=1)
    assert_close(weights(two), weights(one), atol=0)
    assert len(result.predictions) == 1
    before = weights(two)
    result = b([filler], step=2)
    assert result.predictions == []
    assert float(result.loss) == 0.0
    assert_close(
        {n: t for n, t in weights(two).items() if n.startswith("tables.")},
        {n: t for n, t in before.items() if n.startswith("tables.")},
        atol=0,
    )


def test_batch_of_one_row_trains():
    net, step = make()
    before = weights(net)
    step(parts([1]), step=1)
    assert not torch.equal(weights(net)["model/model.final.bias"], before["model/model.final.bias"])
