"""Negatives in batches: what a batch carries, that it is right, and that it is the same however it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rec.config.load import load_config
from rec.data.build_candidates import Retrieval
from rec.data.encoder import Encoder
from rec.data.identity import feature_keys
from rec.data.loader import Loader
from rec.features.build import build_features

USERS, ITEMS, ROWS = 20, 60, 200
CATE = np.random.default_rng(3).integers(0, 5, ITEMS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candidates")
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, USERS, ROWS), (rng.random(ROWS) ** 2 * ITEMS).astype(np.int64)
    rows = pa.table({"user_id": user, "item_id": item, "cate": CATE[item], "label": np.ones(ROWS, np.int64)})
    pq.write_table(rows, folder / "rows.parquet", row_group_size=64)
    items = pa.table({"item_id": np.arange(ITEMS), "weight": np.arange(ITEMS) + 1.0, "cate": CATE})
    pq.write_table(items, folder / "items.parquet")
    edges = {"positives": [(u, i) for u in range(USERS) for i in range(u, u + 25)], "hard": []}
    edges["hard"] = [(u, i) for u in range(0, USERS, 2) for i in range(u + 20, u + 30)]
    for name, pairs in edges.items():
        user, item = np.array(pairs).T
        pq.write_table(pa.table({"user": user, "item": item}), folder / f"{name}.parquet")
    return folder


V1 = 'negative_sampler { input_path: "D/items.parquet" num_sample: 16 num_eval_sample: 5 ATTR }'
V2 = """negative_sampler_v2 { item_input_path: "D/items.parquet" pos_edge_input_path: "D/positives.parquet"
  user_id_field: "user_id" num_sample: 16 ATTR }"""
HARD = """hard_negative_sampler { item_input_path: "D/items.parquet" hard_neg_edge_input_path: "D/hard.parquet"
  user_id_field: "user_id" num_sample: 16 num_hard_sample: 3 ATTR }"""
HARD_V2 = """hard_negative_sampler_v2 { item_input_path: "D/items.parquet" hard_neg_edge_input_path: "D/hard.parquet"
  pos_edge_input_path: "D/positives.parquet" user_id_field: "user_id" num_sample: 16 num_hard_sample: 3 ATTR }"""
SAMPLERS = {"none": "", "v1": V1, "v2": V2, "hard": HARD, "hard_v2": HARD_V2}


def retrieval(folder: Path, sampler: str, *, in_batch: bool, more: str = "") -> Retrieval:
    attributes = 'attr_fields: ["item_id", "cate"] item_id_field: "item_id"'
    text = f"""
    train_input_path: "D/rows.parquet" eval_input_path: "D/rows.parquet" model_dir: "m"
    train_config {{ sparse_optimizer {{ adagrad_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }}
      dense_optimizer {{ adam_optimizer {{ lr: 0.1 }} constant_learning_rate {{}} }} num_epochs: 1 }}
    data_config {{ dataset_type: ParquetDataset fg_mode: FG_NORMAL batch_size: 32 label_fields: "label" shuffle: true
      {SAMPLERS[sampler].replace("ATTR", attributes)} }}
    feature_configs {{ id_feature {{ feature_name: "user_id" expression: "user:user_id" num_buckets: 50
      embedding_dim: 4 }} }}
    feature_configs {{ id_feature {{ feature_name: "item_id" expression: "item:item_id" num_buckets: 90
      embedding_dim: 4 }} }}
    feature_configs {{ id_feature {{ feature_name: "cate" expression: "item:cate" num_buckets: 9 embedding_dim: 4 }} }}
    model_config {{
      feature_groups {{ group_name: "user" group_type: DEEP feature_names: "user_id" }}
      feature_groups {{ group_name: "item" group_type: DEEP feature_names: ["item_id", "cate"] }}
      dssm {{ user_tower {{ input: "user" }} item_tower {{ input: "item" }} output_dim: 4
        in_batch_negative: {str(in_batch).lower()} }}
      losses {{ softmax_cross_entropy {{}} }} {more}
    }}
    """.replace("D/", f"{folder}/")
    (folder / "c.config").write_text(text)
    config = load_config(folder / "c.config").config
    return Retrieval(config, build_features(config))


def loader(made: Retrieval, *, workers: int = 0, training: bool = True, **settings) -> Loader:
    candidates = made.training() if training else made.evaluation()
    data = made.config.data_config
    settings = {"batch_size": 32, "shuffle": True, "seed": 7, "num_workers": workers} | settings
    encoder = Encoder.from_config(made.config)
    return Loader(encoder, made.config.train_input_path, data, candidates=candidates, **settings)


def batches(made: Retrieval, **settings) -> list:
    with loader(made, **settings) as reader:
        return list(reader.epoch(0))


@pytest.mark.parametrize("sampler", ["v1", "v2", "hard", "hard_v2"])
@pytest.mark.parametrize("in_batch", [False, True])
def test_item_features_have_the_drawn_rows_too_and_user_features_have_not(folder: Path, sampler: str, in_batch: bool):
    for batch in batches(retrieval(folder, sampler, in_batch=in_batch)):
        hard = batch.candidates["hard"].shape[1] if "hard" in sampler else 0
        assert batch.items == batch.size + 16 + hard
        assert batch.features["user_id.lengths"].shape[0] == batch.size
        items = batch.features["item_id.values"]
        assert items.shape[0] == batch.features["cate.lengths"].shape[0] == batch.items
        # The attributes are those of the drawn item, and the key tells it.
        np.testing.assert_array_equal(batch.features["cate.values"], CATE[items])
        np.testing.assert_array_equal(batch.candidates["item_key"], items)
        assert batch.labels["label"].shape[0] == batch.size


@pytest.mark.parametrize("training", [True, False])
def test_a_share_of_the_drawn_items_is_hidden_in_training_and_no_positive(folder: Path, training: bool):
    made = retrieval(folder, "v1", in_batch=True)
    text = (folder / "c.config").read_text().replace("data_config {", "data_config { negative_sample_mask_prob: 0.5", 1)
    (folder / "c.config").write_text(text.replace('"item:cate"', '"item:cate" use_mask: true'))
    config = load_config(folder / "c.config").config
    made = Retrieval(config, build_features(config))
    drawn, hidden = 0, 0
    for batch in batches(made, training=training):
        lengths = batch.features["cate.lengths"].numpy()
        assert (lengths[: batch.size] == 1).all()
        drawn, hidden = drawn + batch.items - batch.size, hidden + int((lengths[batch.size :] == 0).sum())
        # What is not hidden is still right, and so are the ids.
        items = batch.candidates["item_key"].numpy()
        np.testing.assert_array_equal(batch.features["item_id.values"], items)
        np.testing.assert_array_equal(batch.features["cate.values"], CATE[items[lengths == 1]])
    # 7 batches of 16 draws: .5 within five standard deviations.
    assert hidden == 0 if not training else abs(hidden / drawn - 0.5) < 5 * 0.5 / drawn**0.5


def negatives_of(batch, in_batch: bool) -> dict[int, set[int]]:
    """Items that each row is compared with, by row."""
    items = batch.candidates["item_key"].numpy()
    hard = batch.candidates.get("hard", torch.zeros(2, 0, dtype=torch.int64))
    shared = items[0 if in_batch else batch.size : len(items) - hard.shape[1]]
    keep = np.ones((batch.size, len(shared)), bool)
    keep[batch.candidates["masked"][0], batch.candidates["masked"][1]] = False
    found = {row: set(shared[keep[row]].tolist()) for row in range(batch.size)}
    for place, row in enumerate(hard[0].tolist()):
        found[row].add(int(items[len(items) - hard.shape[1] + place]))
    return found


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("in_batch", [False, True])
def test_a_row_is_never_compared_with_a_positive(folder: Path, sampler: str, in_batch: bool):
    if sampler == "none" and not in_batch:
        pytest.skip("no negatives at all")
    for batch in batches(retrieval(folder, sampler, in_batch=in_batch)):
        users, items = batch.features["user_id.values"].tolist(), batch.features["item_id.values"].tolist()
        for row, negatives in negatives_of(batch, in_batch).items():
            assert negatives
            assert items[row] not in negatives
            if sampler.endswith("v2"):
                assert not negatives & set(range(users[row], users[row] + 25))
            if sampler in ("v1", "hard") and not in_batch:
                hard = set(range(users[row] + 20, users[row] + 30)) if sampler == "hard" else set()
                assert not negatives & (set(items[: batch.size]) - hard)


def test_hard_negatives_are_those_of_the_row_s_user(folder: Path):
    counts = []
    for batch in batches(retrieval(folder, "hard", in_batch=False)):
        users = batch.features["user_id.values"].numpy()
        row, place = batch.candidates["hard"].numpy()
        items = batch.candidates["item_key"].numpy()[batch.size + 16 :]
        assert ((items >= users[row] + 20) & (items < users[row] + 30)).all()
        assert (users[row] % 2 == 0).all()
        assert place.max() == 2
        counts += np.bincount(row, minlength=batch.size)[users % 2 == 0].tolist()
    assert set(counts) == {3}


def test_without_their_number_a_row_has_all_hard_negatives_of_its_user(folder: Path):
    made = retrieval(folder, "hard", in_batch=False)
    made.message.ClearField("num_hard_sample")
    for batch in batches(made):
        users = batch.features["user_id.values"].numpy()
        row, place = batch.candidates["hard"].numpy()
        items = batch.candidates["item_key"].numpy()[batch.size + 16 :]
        # The row's own item is none of them.
        own = batch.features["item_id.values"].numpy()[: batch.size]
        expected = [
            sorted({*range(u + 20, u + 30)} - {i}) if u % 2 == 0 else [] for u, i in zip(users, own, strict=True)
        ]
        assert [sorted(items[row == i]) for i in range(batch.size)] == expected
        assert [place[row == i].tolist() for i in range(batch.size)] == [list(range(len(e))) for e in expected]


@pytest.mark.parametrize("sampler", ["none", "v1", "hard_v2"])
def test_batches_do_not_depend_on_workers_and_go_on_where_they_were_left(folder: Path, sampler: str):
    made = retrieval(folder, sampler, in_batch=True)
    alone, shared = batches(made), batches(made, workers=2)
    with loader(made) as reader:
        resumed = list(reader.epoch(0, alone[2].position))
    for one, others in ((alone, shared), (alone[3:], resumed)):
        assert len(one) == len(others)
        for a, b in zip(one, others, strict=True):
            assert a.candidates.keys() == b.candidates.keys()
            for name, tensor in (a.candidates | a.features).items():
                assert torch.equal(tensor, (b.candidates | b.features)[name]), name


def test_epochs_seeds_and_ranks_draw_differently(folder: Path):
    made = retrieval(folder, "v1", in_batch=False)

    def drawn(epoch: int = 0, **settings) -> list[int]:
        with loader(made, shuffle=False, **settings) as reader:
            batch = next(iter(reader.epoch(epoch)))
            return batch.candidates["item_key"][batch.size :].tolist()

    assert drawn() == drawn()
    assert len({tuple(d) for d in (drawn(), drawn(epoch=1), drawn(seed=8), drawn(world=2, rank=1))}) == 4


def test_counts_of_sampled_negatives_are_log_of_n_q(folder: Path):
    for batch in batches(retrieval(folder, "v1", in_batch=False)):
        items = batch.candidates["item_key"][batch.size :].numpy()
        expected = np.log(16 * (items + 1.0) / (ITEMS * (ITEMS + 1) / 2))
        np.testing.assert_allclose(batch.candidates["log_count"], expected, rtol=1e-5)


def test_counts_of_in_batch_negatives_are_those_of_the_training_rows(folder: Path):
    rows = pq.read_table(folder / "rows.parquet")["item_id"].to_numpy()
    share = np.bincount(rows, minlength=ITEMS) / ROWS
    for more in ("", 'retrieval { item_id_field: "item_id" }'):
        for batch in batches(retrieval(folder, "none", in_batch=True, more=more)):
            items = batch.features["item_id.values"].numpy()
            expected = np.log((batch.size - 1) * share[items])
            np.testing.assert_allclose(batch.candidates["log_count"], expected, rtol=1e-5)


def test_counts_of_both_add_up(folder: Path):
    rows = pq.read_table(folder / "rows.parquet")["item_id"].to_numpy()
    share = np.maximum(np.bincount(rows, minlength=ITEMS), 1) / ROWS
    for batch in batches(retrieval(folder, "v1", in_batch=True)):
        items = batch.candidates["item_key"].numpy()
        expected = (batch.size - 1) * share[items] + 16 * (items + 1.0) / (ITEMS * (ITEMS + 1) / 2)
        np.testing.assert_allclose(batch.candidates["log_count"].exp(), expected, rtol=1e-5)


def test_no_correction_and_no_mask_where_the_config_says_so(folder: Path):
    made = retrieval(folder, "none", in_batch=True, more="retrieval { logq_correction: false mask_same_item: false }")
    for batch in batches(made):
        assert "log_count" not in batch.candidates
        rows = torch.arange(batch.size)
        assert torch.equal(batch.candidates["masked"], torch.stack([rows, rows]))


def test_evaluation_draws_its_own_number(folder: Path):
    batch = batches(retrieval(folder, "v1", in_batch=False), training=False)[0]
    assert batch.items == batch.size + 5


def test_a_batch_of_one_row(folder: Path):
    for sampler in SAMPLERS:
        batch = batches(retrieval(folder, sampler, in_batch=True), batch_size=1)[0]
        assert torch.isfinite(batch.candidates["log_count"]).all()


def test_items_are_the_same_where_all_features_are():
    features = {
        "a.values": np.array([1, 1, 2, 1]),
        "a.lengths": np.ones(4, np.int32),
        "tags.values": np.array([5, 6, 6, 5, 5, 6, 5]),
        "tags.lengths": np.array([2, 2, 2, 1], np.int32),
        "price.values": np.array([[0.5], [0.5], [0.5], [-0.0]], np.float32),
    }
    keys = feature_keys(features, ["a", "tags", "price"])
    assert keys[0] == keys[1]  # the order of several ids does not matter
    assert len(set(keys.tolist())) == 3


@pytest.mark.parametrize("in_batch", [True, False])
def test_items_of_rows_that_the_item_file_lacks_are_counted(folder: Path, in_batch: bool, caplog, tmp_path: Path):
    rows = pq.read_table(folder / "rows.parquet")["item_id"].to_numpy()
    pq.write_table(pq.read_table(folder / "items.parquet").slice(3), tmp_path / "items.parquet")
    made = retrieval(folder, "v1", in_batch=in_batch)
    made.training()
    assert "the item file lacks" not in caplog.text
    made = retrieval(folder, "v1", in_batch=in_batch)
    made.message.input_path = str(tmp_path / "items.parquet")
    made.training()
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    share = 100 * (rows < 3).mean()
    assert f"the item file lacks 3 items of the training rows, those of {share:.3g} % of 200 rows: they are" in said


MEMORY = "retrieval { cross_batch_memory { size: 100 } }"


def test_a_memory_is_told_shares_and_draws_by_themselves(folder: Path):
    rows = pq.read_table(folder / "rows.parquet")["item_id"].to_numpy()
    share = np.maximum(np.bincount(rows, minlength=ITEMS), 1) / ROWS
    q = (np.arange(ITEMS) + 1.0) / (ITEMS * (ITEMS + 1) / 2)
    for in_batch in (False, True):
        for batch in batches(retrieval(folder, "v1", in_batch=in_batch, more=MEMORY)):
            items, found = batch.candidates["item_key"].numpy(), batch.candidates
            np.testing.assert_allclose(found["log_share"].exp(), share[items], rtol=1e-5)
            np.testing.assert_allclose(found["log_drawn"].exp(), 16 * q[items[: batch.size]], rtol=1e-5)
            first = 0 if in_batch else batch.size
            expected = (batch.size - 1) * in_batch * share[items] + 16 * q[items]
            np.testing.assert_allclose(found["log_count"].exp(), expected[first:], rtol=1e-5)


def test_items_that_are_no_negatives_of_a_row_are_told_by_their_keys(folder: Path):
    for sampler in ("v1", "v2"):
        for batch in batches(retrieval(folder, sampler, in_batch=True, more=MEMORY)):
            users, items = batch.features["user_id.values"].tolist(), batch.candidates["item_key"].tolist()
            told: dict[int, set[int]] = {row: set() for row in range(batch.size)}
            for row, key in batch.candidates["not_negative"].t().tolist():
                told[row].add(key)
            for row, keys in told.items():
                known = set(range(users[row], users[row] + 25)) if sampler == "v2" else set()
                assert keys == {items[row]} | known
    unmasked = "retrieval { cross_batch_memory { size: 9 } mask_same_item: false logq_correction: false }"
    for batch in batches(retrieval(folder, "v1", in_batch=True, more=unmasked)):
        assert batch.candidates["not_negative"].shape == (2, 0)
        assert not {"log_share", "log_drawn", "log_count"} & set(batch.candidates)


def test_evaluations_are_told_nothing_for_a_memory(folder: Path):
    made = retrieval(folder, "v1", in_batch=True, more=MEMORY)
    assert set(batches(made, training=False)[0].candidates) == {"item_key", "masked"}
