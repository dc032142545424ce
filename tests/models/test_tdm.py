"""TDM: what it reads, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format

from rec.config.errors import ConfigError
from rec.embedding.shapes import GroupShapes
from rec.models.tdm import TDM
from rec.protos.models import tdm_pb2
from tests.conformance.cases import group, sequence

TEXT = "multiwindow_din { windows_len: [1, 2] attn_mlp { hidden_units: 4 } WHERE } final { hidden_units: 4 }"


def build(*groups, where: str = "", text: str = TEXT) -> TDM:
    torch.manual_seed(0)
    return TDM(text_format.Parse(text.replace("WHERE", where), tdm_pb2.TDM()), GroupShapes(groups), num_class=2)


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([5, 0, 2])
    tensors = {"seq.lengths": lengths, "seq.query": torch.randn(3, 4, generator=draw)}
    return tensors | {"seq.sequence": torch.randn(7, 4, generator=draw), "deep": torch.randn(3, 3, generator=draw)}


GROUPS = sequence("seq", 4, 4), group("deep", ("user", 3))


def test_another_node_has_another_score_also_without_a_history():
    model, one = build(*GROUPS).eval(), inputs()
    other = one | {"seq.query": inputs(seed=1)["seq.query"]}
    assert (model(one)["logits"] != model(other)["logits"]).all()


@pytest.mark.parametrize(("where", "read"), [("", [0, 1, 2]), ("most_recent: LAST_STEP", [2, 3, 4])])
def test_the_windows_lie_at_the_end_that_is_most_recent(where, read):
    model, tensors = build(*GROUPS, where=where).eval(), inputs()
    before = model(tensors)["logits"][0]
    for step in range(5):
        changed = tensors["seq.sequence"].clone()
        changed[step] += 1
        after = model(tensors | {"seq.sequence": changed})["logits"][0]
        assert torch.equal(before, after) == (step not in read), step


def test_windows_are_in_the_order_of_how_recent_they_are():
    first, last = build(*GROUPS).eval(), build(*GROUPS, where="most_recent: LAST_STEP").eval()
    tensors = inputs()
    steps = torch.cat([row.flip(0) for row in tensors["seq.sequence"].split(tensors["seq.lengths"].tolist())])
    # sums in another order
    torch.testing.assert_close(last(tensors | {"seq.sequence": steps}), first(tensors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("groups", "text", "message"),
    [
        ((group("deep", ("user", 3)),), TEXT, "reads one SEQUENCE group, here are 0"),
        ((sequence("a", 4, 4), sequence("b", 4, 4)), TEXT, "here are 2"),
        ((sequence("seq", 0, 4),), TEXT, "the node is 0 wide, a step 4"),
        ((sequence("seq", 6, 4),), TEXT, "the node is 6 wide, a step 4"),
        (GROUPS, TEXT.replace("[1, 2]", "[1, 0]"), "windows_len needs lengths of at least 1"),
        ((*GROUPS, group("wide", ("x", 1), type="WIDE")), TEXT, 'does not read group "wide"'),
    ],
)
def test_what_it_cannot_read_is_refused(groups, text, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        build(*groups, text=text)
