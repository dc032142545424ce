"""Mamba as a sequence encoder of a nested sequence group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.embedding import ENCODERS, GroupShape, SequenceEncoder
from rec.export.script import libraries, script, trace
from rec.protos import seq_encoder_pb2 as pb

LENGTHS = torch.tensor([3, 0, 6, 1], dtype=torch.int32)
POOLINGS = ["TARGET", "LAST", "MEAN"]


def shape(query: int = 4, steps: int = 4) -> GroupShape:
    members = (("q", query),) if query else ()
    return GroupShape("h", "SEQUENCE", (), query=members, sequence=(("s", steps),), max_length=9)


def encoder(group: GroupShape | None = None, *, seed: int = 0, **settings) -> SequenceEncoder:
    torch.manual_seed(seed)
    layers = {"d_state": 4, "num_layers": 2} | settings.pop("layers", {})
    return ENCODERS.build(pb.MambaEncoder(layers=layers, **settings), group or shape()).eval()


def inputs(query: int = 4, steps: int = 4, lengths: Tensor = LENGTHS) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(lengths.shape[0], query, generator=g),
        torch.randn(int(lengths.sum()), steps, generator=g),
        lengths,
    )


def test_the_target_is_the_last_step() -> None:
    m, (query, steps, lengths) = encoder(), inputs()
    out = m(query, steps, lengths)
    for row, history in enumerate(steps.split(lengths.tolist())):
        whole = torch.cat([history, query[row : row + 1]])
        # Products of other numbers of rows may be summed otherwise in float32.
        want = m.layers(whole, torch.tensor([len(whole)]))[-1]
        torch.testing.assert_close(out[row], want, rtol=1e-5, atol=1e-5)


def test_last_and_mean_read_the_steps_and_are_zero_without_any() -> None:
    query, steps, lengths = inputs()
    for pooling in ("LAST", "MEAN"):
        m = encoder(pooling=pooling)
        out, h = m(query, steps, lengths), m.layers(steps, lengths).split(lengths.tolist())
        for row in (0, 2, 3):
            want = h[row][-1] if pooling == "LAST" else h[row].mean(0)
            torch.testing.assert_close(out[row], want)
        assert not out[1].any()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_steps_beyond_the_longest_are_not_read(pooling: str) -> None:
    m, (query, steps, lengths) = encoder(pooling=pooling, max_seq_length=2), inputs()
    kept = torch.cat([history[:2] for history in steps.split(lengths.tolist())])
    short = lengths.clamp(max=2)
    torch.testing.assert_close(m(query, steps, lengths), m(query, kept, short), rtol=1e-5, atol=1e-6)
    changed = steps.clone()
    changed[2] *= -1  # the third step of the first row
    assert torch.equal(m(query, changed, lengths), m(query, steps, lengths))


def test_another_target_gives_another_output() -> None:
    m, (query, steps, lengths) = encoder(), inputs()
    before, after = m(query, steps, lengths), m(query.flip(1), steps, lengths)
    assert (after - before).abs().amax(dim=1).min() > 1e-3


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_order_of_the_history_matters(pooling: str) -> None:
    m, (query, steps, lengths) = encoder(pooling=pooling), inputs()
    back = torch.cat([history.flip(0) for history in steps.split(lengths.tolist())])
    change = (m(query, back, lengths) - m(query, steps, lengths)).abs().amax(dim=1)
    assert change[[0, 2]].min() > 1e-3
    # Rows of one step or none have no order.
    assert change[[1, 3]].max() < 1e-6


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_of_one_is_its_row_of_the_batch(pooling: str) -> None:
    m, (query, steps, lengths) = encoder(pooling=pooling), inputs()
    whole, histories = m(query, steps, lengths), steps.split(lengths.tolist())
    for row in range(4):
        alone = m(query[row : row + 1], histories[row], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("query", "steps", "width", "projections"),
    [
        (4, 4, 0, {}),
        (4, 4, 6, {"project_steps.weight": (6, 4)}),
        (3, 4, 0, {"project_target.weight": (4, 3)}),
        (3, 4, 6, {"project_steps.weight": (6, 4), "project_target.weight": (6, 3)}),
        (6, 4, 6, {"project_steps.weight": (6, 4)}),
    ],
)
def test_widths_are_projected_where_they_differ_and_everything_learns(query, steps, width, projections) -> None:
    m = encoder(shape(query, steps), d_model=width)
    shapes = {name: tuple(p.shape) for name, p in m.named_parameters() if name.endswith("weight")}
    assert {k: v for k, v in shapes.items() if k.startswith("project")} == projections
    assert m.output_width == (width or steps)
    data = inputs(query, steps)
    for t in data[:2]:
        t.requires_grad_()
    out = m(*data)
    assert out.shape == (4, m.output_width)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    for name, t in [*m.named_parameters(), ("query", data[0]), ("steps", data[1])]:
        assert torch.isfinite(t.grad).all(), name
        assert t.grad.abs().max() > 0, name


def test_a_target_must_be_there_to_be_read() -> None:
    with pytest.raises(ConfigError, match=r'sequence group "h", which has no target.*pooling: LAST'):
        encoder(shape(query=0))
    m = encoder(shape(query=0), pooling="LAST")
    assert m(*inputs(query=0)).shape == (4, 4)


def test_a_wrong_setting_points_to_the_layers() -> None:
    with pytest.raises(ConfigError, match="d_state is 0") as e:
        encoder(layers={"d_state": 0})
    assert e.value.message.DESCRIPTOR.name == "Mamba4RecLayers"


class Encoding(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"out": self.inner(x["query"], x["steps"], x["lengths"])}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_exported_equals_eager_for_any_size(pooling: str) -> None:
    m = Encoding(encoder(shape(3, 4), pooling=pooling, d_model=6, max_seq_length=4)).eval()
    scripted = script(trace(m))
    assert libraries(scripted) == []
    for lengths in (LENGTHS, LENGTHS[1:2], LENGTHS[3:], LENGTHS[:0]):
        x = dict(zip(("query", "steps", "lengths"), inputs(3, 4, lengths), strict=True))
        # Another exponential and other orders of summation in float32.
        torch.testing.assert_close(scripted(x)["out"], m(x)["out"], rtol=1e-5, atol=1e-6)
