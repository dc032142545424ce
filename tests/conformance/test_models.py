"""What every model must do, on random groups. tests/conformance/cases.py lists the models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rec.export.script import libraries, script, trace
from rec.models import MODELS
from tests.conformance.cases import CASES, Case, rows_of

ROWS = 7


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def is_logits(name: str) -> bool:
    """Whether a prediction is logits; others ("gate") have shapes and scales of their own."""
    return name.startswith("logits")


def loss_of(predictions: dict[str, Tensor]) -> Tensor:
    """Some scalar in which every logit matters in its own way, to each class and row."""
    total = torch.zeros(())
    for i, logits in enumerate(predictions.values()):
        target = torch.linspace(-1, 1 + i, logits.numel()).view_as(logits)
        total = total + ((logits - target) ** 2).mean()
    return total


def test_every_registered_model_has_a_case() -> None:
    covered = {case.config().WhichOneof("model") for case in CASES}
    fields = {
        field.message_type.full_name: field.name
        for field in CASES[0].config().DESCRIPTOR.oneofs_by_name["model"].fields
    }
    registered = {fields[message.DESCRIPTOR.full_name] for message in MODELS.types()}
    assert registered == covered


def test_outputs_have_the_promised_names_and_shapes(case: Case) -> None:
    predictions = case.build()(case.inputs(ROWS))
    assert tuple(predictions) == case.outputs
    for name, value in predictions.items():
        num_class = 3 if name == "logits_grade" else case.num_class
        if not case.is_by_row(name):
            continue
        if case.width:
            assert value.shape == (ROWS, case.width), name
        elif is_logits(name):
            assert value.shape == ((ROWS,) if num_class == 1 else (ROWS, num_class)), name
        assert value.shape[0] == ROWS, name
        assert value.dtype == torch.float32


def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(case: Case) -> None:
    model = case.build()
    loss_of(model(case.inputs(64))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_every_input_gets_a_gradient(case: Case) -> None:
    inputs = case.inputs(32)
    for value in inputs.values():
        if value.is_floating_point():
            value.requires_grad_()
    loss_of(case.build()(inputs)).backward()
    for name, value in inputs.items():
        if value.is_floating_point():
            assert value.grad.abs().max() > 0, name


def test_permuting_rows_permutes_outputs(case: Case) -> None:
    model, inputs = case.build().eval(), case.inputs(ROWS)
    order = [3, 1, 6, 0, 5, 2, 4]
    whole, permuted = model(inputs), model(rows_of(case, inputs, order))
    for name in filter(case.is_by_row, whole):
        # fp32 sums over a few dozen terms, in an order that may depend on the row's place.
        torch.testing.assert_close(permuted[name], whole[name][order], rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_is_its_row_of_the_batch(case: Case) -> None:
    model, inputs = case.build().eval(), case.inputs(ROWS)
    whole = model(inputs)
    for row in range(ROWS):
        alone = model(rows_of(case, inputs, [row]))
        for name in filter(case.is_by_row, whole):
            assert alone[name].shape == (1, *whole[name].shape[1:])
            torch.testing.assert_close(alone[name][0], whole[name][row], rtol=1e-5, atol=1e-6)


def test_a_training_batch_of_one_row_trains(case: Case) -> None:
    model = case.build().train()
    loss_of(model(case.inputs(1, seed=3))).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_empty_batch_gives_empty_outputs(case: Case) -> None:
    for name, value in case.build().eval()(case.inputs(0)).items():
        assert value.shape[0] == 0 or not case.is_by_row(name), name


def test_logits_start_near_zero(case: Case) -> None:
    # Tables start at a standard deviation of 0.01: a model's first word is "I do not know".
    # After a norm the last hidden layer has unit scale, and the head (Xavier) gives logits of order 1.
    limit = 3.0 if case.normed else 0.1
    for name, value in case.build()(case.inputs(256, std=0.01)).items():
        if is_logits(name):
            assert value.square().mean().sqrt() < limit, name


def test_traced_and_scripted_equals_eager(case: Case) -> None:
    model = case.build()
    # Running statistics that are not 0 and 1.
    for seed in range(3):
        model(case.inputs(32, seed=seed))
    model.eval()
    inputs = case.inputs(ROWS)
    eager = model(inputs)
    traced = trace(model)
    scripted = script(traced)
    for name, value in traced(inputs).items():
        if case.kernels:
            torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, eager[name]), name
    for name, value in scripted(inputs).items():
        # Freezing folds batch norm into the linear layer before it: one rounding less.
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)
    assert libraries(scripted) == []


def test_traced_graph_is_plain_aten_though_gradients_are_asked_for(case: Case) -> None:
    for node in trace(case.build()).graph.nodes:
        module = getattr(node.target, "__module__", None) or ""
        ours = node.op == "call_function" and module.startswith("rec")
        # A loop over the data stays one call, which TorchScript compiles to ATen.
        assert not ours or getattr(node.target, "is_scriptable", False), node


def test_eval_changes_nothing_in_the_model(case: Case) -> None:
    model = case.build().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(case.inputs(ROWS))
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name


def test_the_same_seed_gives_the_same_model(case: Case) -> None:
    one, two = case.build(seed=5).state_dict(), case.build(seed=5).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_it_overfits_one_batch(case: Case) -> None:
    model = case.build()
    inputs = case.inputs(16)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = None
    for _ in range(150):
        optimizer.zero_grad()
        loss = torch.zeros(())
        predictions = model(inputs)
        if case.width:  # each user is to find its own item
            similarity = predictions["user_embedding"] @ predictions["item_embedding"].t()
            predictions = {"similarity": (10 if case.normed else 1) * similarity}
        for name, logits in predictions.items():
            if not case.width and not is_logits(name):
                continue
            if logits.dim() == 1:
                labels = (torch.arange(16) % 3 == 0).float()
                loss = loss + nn.functional.binary_cross_entropy_with_logits(logits, labels)
            else:
                loss = loss + nn.functional.cross_entropy(logits, torch.arange(16) % logits.shape[1])
        loss.backward()
        optimizer.step()
        first = first if first is not None else loss.item()
    assert loss.item() < 0.1 * first


def test_bfloat16_stays_close_to_float32(case: Case) -> None:
    model, inputs = case.build().eval(), case.inputs(64, std=0.1)
    full = model(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(inputs)
    for name in full:
        assert torch.isfinite(half[name]).all()
        # bf16 has 8 bits: a few thousandths of each product, of logits of order 1.
        torch.testing.assert_close(half[name].float(), full[name], rtol=0.05, atol=0.02)


# Between them all that torch.export could trip over: norms, Dice, jagged steps, buffers, heads, experts.
@pytest.mark.parametrize("name", ["multi_tower_norms", "multi_tower_din", "dlrm", "dcn_v3_heads", "mmoe", "mdaf_din"])
def test_torch_export_equals_eager_at_another_batch_size(name: str) -> None:
    (case,) = (case for case in CASES if case.name == name)
    model, inputs = case.build().eval(), case.inputs(ROWS)
    rows, steps = torch.export.Dim("rows"), torch.export.Dim("steps")
    dims = {key: {0: steps if key.endswith(".sequence") else rows} for key in inputs}
    with torch.no_grad():
        program = torch.export.export(model, (inputs,), dynamic_shapes=(dims,), strict=False)
    other = case.inputs(ROWS + 4, seed=4)
    eager = model(other)
    for output, value in program.module()(other).items():
        assert torch.equal(value, eager[output]), output
