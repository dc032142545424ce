"""State of tables: what a checkpoint needs to continue with the same bits."""

from __future__ import annotations

import pytest
import torch
import torch.distributed.checkpoint as dcp

from rec.embedding import EmbeddingGroup
from tests.embedding.helpers import batch, build
from tests.embedding.workers import OPTIMIZERS, group, part, train_step


def bits(embedding: EmbeddingGroup) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in embedding.tables_state().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_training_has_the_same_bits(tmp_path, name):
    unbroken = group(name)
    for step in range(2):
        train_step(unbroken, part(step, 0))
    dcp.save(unbroken.tables_state(), checkpoint_id=str(tmp_path / "c"))
    resumed = group(name)
    dcp.load(resumed.tables_state(), checkpoint_id=str(tmp_path / "c"))
    equal(bits(resumed), bits(unbroken))
    for step in range(2, 4):
        for embedding in (unbroken, resumed):
            train_step(embedding, part(step, 0))
    equal(bits(resumed), bits(unbroken))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_repeats_bit_by_bit_on_one_and_two_threads(name):
    runs = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            embedding = group(name)
            for step in range(3):
                train_step(embedding, batch(build()[0], 3000, seed=step))
            runs.append(bits(embedding))
    finally:
        torch.set_num_threads(before)
    equal(runs[0], runs[1])
    equal(runs[0], runs[2])


def test_names_and_shapes():
    state = group("adam").tables_state()
    assert state["tables.user"].shape == state["tables.user.exp_avg"].shape == (50, 8)
    assert state["tables.user.step"].tolist() == [0]
    assert group("rowwise").tables_state()["tables.user.sum"].shape == (50,)
    assert group("adagrad").tables_state()["tables.user.sum"].unique().item() == pytest.approx(0.1)


def test_state_is_the_tables_themselves():
    embedding = group("adam")
    state = embedding.tables_state()
    for value in state.values():
        value.fill_(1)
    assert all((table == 1).all() for table in embedding.export_weights().values())
    train_step(embedding, part(0, 0))
    assert state["tables.user.step"].tolist() == [2]


def test_tables_of_training_become_parameters_of_the_plain_backend():
    fused = group("adagrad")
    train_step(fused, part(0, 0))
    plain = EmbeddingGroup(fused.plan.features.values(), _config(), backend="plain", device="meta")
    plain.to_empty(device="cpu")
    plain.load_state_dict({**fused.state_dict(), **fused.export_weights()})
    data = part(1, 0)
    want = fused(data)
    for name, value in plain(data).items():
        torch.testing.assert_close(value, want[name], atol=1e-6, rtol=0)
    equal(plain.export_weights(), fused.export_weights())


def _config():
    from tests.embedding.workers import GROUPS, SHARDED

    return build(SHARDED, GROUPS)[1]


def test_start_does_not_depend_on_order_or_company():
    """A table starts alike alone, in another order, and in the other backend."""
    features, config = build(groups='feature_groups { group_name: "a" feature_names: ["item", "user"] }')
    alone = EmbeddingGroup(features, config, backend="plain", seed=3).export_weights()
    among = group("adam").export_weights()
    for name in ("tables.user", "tables.item"):
        assert torch.equal(alone[name], among[name])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    group("adam")
    assert torch.equal(torch.get_rng_state(), before)
