"""DSSM and DAT over real tables: who shares what, who is trained by what, and unknown ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rec.assemble import Job
from rec.config.load import load_config
from rec.data.batch import Batch
from rec.embedding import EmbeddingGroup
from rec.train.micro import split_groups
from rec.world import World
from tests.tiny_data import overrides, place_items, write_tiny

TINY = Path(__file__).parents[2] / "configs/tiny"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), train=400, evaluation=64)


def job(name: str, data: Path, *more: str) -> Job:
    loaded = load_config(TINY / f"{name}.config", [*overrides(data), *more])
    place_items(loaded.config, data)
    return Job(loaded, World(), "cpu")


@pytest.mark.parametrize("name", ["dssm", "dssm_v2", "dat"])
def test_fused_look_ups_of_both_sides_equal_the_plain_ones(name: str, data: Path):
    made = job(name, data)
    plain, fused = made.network(backend="plain").embedding, made.network().embedding
    for key, table in fused.export_weights().items():
        plain.tables.get_parameter(key.removeprefix("tables.")).data.copy_(table)
    batch = next(iter(made.train_loader().epoch(0)))
    ours, theirs = fused(batch.features), plain(batch.features)
    assert ours["user"].shape[0] == batch.size
    assert ours["item"].shape[0] == batch.items
    assert (batch.items > batch.size) == (name != "dssm")
    for group, values in theirs.items():
        torch.testing.assert_close(ours[group], values, rtol=1e-6, atol=1e-7)


def test_towers_of_dat_may_be_a_linear_map_alone(data: Path):
    loaded = load_config(TINY / "dat.config", overrides(data))
    place_items(loaded.config, data)
    for tower in (loaded.config.model_config.dat.user_tower, loaded.config.model_config.dat.item_tower):
        tower.ClearField("mlp")
    made = Job(loaded, World(), "cpu")
    network = made.network()
    shapes = {name: tuple(p.shape) for name, p in network.model.named_parameters() if name.endswith("weight")}
    assert {name.split(".")[0] for name in shapes} == {"user", "item"}
    assert len(shapes) == 2
    batch = next(iter(made.train_loader().epoch(0)))
    found = network(batch.features)
    assert found["user_embedding"].shape == found["user_augmented"].shape


@pytest.mark.parametrize("name", ["dssm_v2", "dat"])
def test_a_table_is_looked_up_once_a_step(name: str, data: Path, monkeypatch: pytest.MonkeyPatch):
    made = job(name, data)
    embedding = made.network().embedding
    calls = []
    for part in [*embedding.tables._bags, *embedding.tables._sequences]:
        forward = part.module.forward
        monkeypatch.setattr(part.module, "forward", lambda *a, _f=forward, _p=part: calls.append(_p) or _f(*a))
    embedding(next(iter(made.train_loader().epoch(0))).features)
    tables = [name for part in calls for name in part.tables]
    assert sorted(tables) == sorted(embedding.table_specs)


def test_fused_training_of_both_sides_equals_plain_training(data: Path):
    made = job("dssm_v2", data, "train_config { sparse_optimizer { sgd_optimizer { lr: 0.5 } } }")
    plain, fused = made.network(backend="plain"), made.network()
    fused.model.load_state_dict(plain.model.state_dict())
    for key, table in fused.embedding.export_weights().items():
        plain.embedding.tables.get_parameter(key.removeprefix("tables.")).data.copy_(table)
    fused.embedding.set_lr(0.5)
    (task,) = made.tasks()
    batch = next(iter(made.train_loader().epoch(0)))
    for network in (plain, fused):
        (loss,) = (s.mean() for s in task.loss(network(batch.features), batch).values())
        loss.backward()
    after = fused.embedding.export_weights()
    for key, parameter in plain.embedding.tables.named_parameters():
        # fp32 sums of a few hundred gradients, in another order
        torch.testing.assert_close(
            after[f"tables.{key}"], parameter.detach() - 0.5 * parameter.grad, rtol=1e-4, atol=1e-6
        )


def two_sided(model: str) -> str:
    towers = 'user_tower { input: "user" } item_tower { input: "item" } output_dim: 4 in_batch_negative: true'
    return f"""
    train_input_path: "t" eval_input_path: "e" model_dir: "m"
    train_config {{ sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
      dense_optimizer {{ adam_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }} num_epochs: 1 }}
    data_config {{ dataset_type: ParquetDataset fg_mode: FG_NORMAL }}
    feature_configs {{ id_feature {{ feature_name: "last" expression: "user:last" num_buckets: 9 embedding_dim: 4
      embedding_name: "items" }} }}
    feature_configs {{ id_feature {{ feature_name: "item" expression: "item:item" num_buckets: 9 embedding_dim: 4
      embedding_name: "items" }} }}
    model_config {{ feature_groups {{ group_name: "user" group_type: DEEP feature_names: "last" }}
      feature_groups {{ group_name: "item" group_type: DEEP feature_names: "item" }}
      {model} {{ {towers} }} losses {{ softmax_cross_entropy {{}} }} }}
    """


@pytest.mark.parametrize(("model", "tables"), [("dssm", ["items", "items_item_tower"]), ("dssm_v2", ["items"])])
def test_towers_have_tables_of_their_own_or_share_them(model: str, tables: list[str], tmp_path: Path):
    (tmp_path / "c.config").write_text(two_sided(model))
    loaded = load_config(tmp_path / "c.config")
    embedding = EmbeddingGroup(Job(loaded, World()).features, loaded.config.model_config, backend="plain")
    assert list(embedding.table_specs) == tables
    warned = "name one table" in "".join(loaded.warnings)
    assert warned == (model == "dssm")


class TestDAT:
    def test_augmented_vectors_have_tables_of_their_own_that_start_at_zero(self, data: Path):
        tables = job("dat", data).network(backend="plain").embedding.export_weights()
        for name in ("tables.user_id_emb_augment", "tables.item_augment"):
            assert torch.equal(tables[name], torch.zeros_like(tables[name]))
        assert {"tables.user_id_emb", "tables.item"} <= set(tables)

    def test_the_mimic_loss_trains_augmented_vectors_only(self, data: Path):
        made = job("dat", data)
        network, (task,) = made.network(backend="plain"), made.tasks()
        batch = next(iter(made.train_loader().epoch(0)))
        loss = task.loss(network(batch.features), batch)["loss_amm_loss"].mean()
        loss.backward()
        trained = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert trained == {
            "model.user.shared",
            "model.item.shared",
            "embedding.tables.user_id_emb_augment",
            "embedding.tables.item_augment",
        }

    def test_negatives_take_no_part_in_the_mimic_loss(self, data: Path):
        made = job("dat", data)
        network, (task,) = made.network(backend="plain"), made.tasks()
        batch = next(iter(made.train_loader().epoch(0)))
        task.loss(network(batch.features), batch)["loss_amm_loss"].mean().backward()
        grad = network.embedding.tables.item_augment.grad.abs().amax(dim=1)
        items = batch.features["item_id.values"]
        positives = items[: batch.size][batch.labels["click"] > 0]
        assert set(torch.nonzero(grad)[:, 0].tolist()) <= set(positives.tolist())

    def test_an_id_that_was_never_trained_has_the_shared_vector(self, data: Path):
        network = job("dat", data).network(backend="plain").eval()
        batch = next(iter(job("dat", data).train_loader().epoch(0)))
        predictions = network(batch.features)
        shared = network.model.user.shared
        assert torch.equal(predictions["user_augmented"], shared.expand(batch.size, -1))
        network.embedding.tables.user_id_emb_augment.data.fill_(1.0)
        assert torch.equal(network(batch.features)["user_augmented"], (1 + shared).expand(batch.size, -1))

    def test_id_dropout_shows_the_shared_vector_to_some_rows_in_training_only(self, data: Path):
        made = job("dat", data, "model_config { dat { id_dropout: 0.3 } }")
        network = made.network(backend="plain")
        network.embedding.tables.user_id_emb_augment.data.fill_(1.0)
        batch = next(iter(made.train_loader().epoch(0)))
        shared = network.model.user.shared
        seen = network.train()(batch.features)["user_augmented"] - shared
        # 128 rows: 0.3 within four standard deviations, and each row all or nothing
        assert set(seen.round(decimals=5).unique().tolist()) == {0.0, 1.0}
        assert 0.14 < (seen[:, 0] == 0).float().mean() < 0.46
        assert torch.equal(network.eval()(batch.features)["user_augmented"], (1 + shared).expand(batch.size, -1))

    def test_weights_of_zero_leave_the_mimic_loss_out(self, data: Path):
        (task,) = job("dat", data, "model_config { dat { amm_u_weight: 0 amm_i_weight: 0 } }").tasks()
        assert "amm_loss" not in task.losses


def test_micro_batches_are_cut_by_rows_and_by_items(data: Path):
    made = job("dssm_v2", data)
    embedding = made.network(backend="plain").embedding
    batches = list(made.train_loader().epoch(0))[-3:]  # the last one is short
    joined = Batch.concat(batches)
    assert joined.candidates == {}
    parts = split_groups(embedding(joined.features), [b.size for b in batches], [b.items for b in batches])
    for batch, part in zip(batches, parts, strict=True):
        for name, values in embedding(batch.features).items():
            torch.testing.assert_close(part[name], values)
