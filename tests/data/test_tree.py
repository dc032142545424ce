"""Trees from files, what is said of wrong ones, and the rows that are learned from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import ConfigError, DataError
from rec.config.load import load_config
from rec.data.build_tree import TreeIndex
from rec.data.encoder import Encoder
from rec.data.loader import Loader
from rec.data.take_rows import take_rows
from rec.data.tree_rows import POSITIVE, LevelChoice
from rec.features.build import build_features
from tools.tree.order import by_category
from tools.tree.write import Leaves, write

ITEMS, ROWS = 20, 100
CATE = np.arange(ITEMS) % 3
CONFIG = """
train_input_path: "D/rows.parquet" eval_input_path: "D/rows.parquet" model_dir: "m"
train_config { sparse_optimizer { adagrad_optimizer { lr: 0.1 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.1 } constant_learning_rate {} } num_epochs: 1 }
data_config { dataset_type: ParquetDataset fg_mode: FG_NORMAL batch_size: 16 LABEL shuffle: true
  tdm_sampler { item_input_path: "D/tree/node_table.txt" edge_input_path: "D/tree/edge_table.txt"
    predict_edge_input_path: "D/tree/predict_edge_table.txt" attr_fields: "cate" item_id_field: "item_id"
    layer_num_sample: [0, 1, 2, 3, 4, 5] attr_delimiter: "," MORE } }
feature_configs { id_feature { feature_name: "user_id" expression: "user:user_id" num_buckets: 50 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "item_id" expression: "item:item_id" num_buckets: 90 embedding_dim: 4
  embedding_name: "item" } }
feature_configs { id_feature { feature_name: "cate" expression: "item:cate" num_buckets: 9 embedding_dim: 4 } }
feature_configs { sequence_feature { sequence_name: "hist" sequence_length: 10
  features { id_feature { feature_name: "item_id" expression: "user:item_id" num_buckets: 90 embedding_dim: 4
    embedding_name: "item" } } } }
model_config {
  feature_groups { group_name: "seq" group_type: SEQUENCE feature_names: ["item_id", "hist__item_id"] }
  feature_groups { group_name: "deep" group_type: DEEP feature_names: ["user_id", "cate"] }
  tdm { multiwindow_din { windows_len: [2, 8] attn_mlp { hidden_units: 4 } } final { hidden_units: 4 } }
  num_class: 2 losses { softmax_cross_entropy {} } }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    rng = np.random.default_rng(0)
    item = rng.integers(0, ITEMS, ROWS)
    history = [rng.integers(0, ITEMS, n) for n in rng.integers(0, 6, ROWS)]
    rows = {
        "user_id": np.arange(ROWS) % 50,
        "item_id": item,
        "cate": CATE[item],
        "label": (np.arange(ROWS) % 4 > 0) * 1,
    }
    rows |= {"hist__item_id": pa.array(history, pa.list_(pa.int64())), "weight": np.arange(ROWS) + 1.0}
    pq.write_table(pa.table(rows), folder / "rows.parquet", row_group_size=32)
    leaves = Leaves(pa.array(np.arange(ITEMS)), {"cate": pa.array(CATE)}, {})
    write(leaves, by_category(CATE, seed=0), folder / "tree")
    return folder


def index(folder: Path, *, more: str = "", label: str = 'label_fields: "label"', tree: str = "tree") -> TreeIndex:
    text = CONFIG.replace("MORE", more).replace("LABEL", label)
    path = folder / "c.config"
    path.write_text(text.replace("D/tree", f"D/{tree}").replace("D/", f"{folder}/"))
    config = load_config(path).config
    return TreeIndex(config, build_features(config))


def loader(made: TreeIndex, *, training: bool = True, **settings) -> Loader:
    rows = made.training() if training else made.evaluation()
    settings = {"batch_size": 16, "shuffle": True, "seed": 7, "num_workers": 0} | settings
    encoder = Encoder.from_config(made.config)
    return Loader(encoder, made.config.train_input_path, made.config.data_config, candidates=rows, **settings)


def parents(folder: Path) -> dict[int, int]:
    lines = [line.split("\t") for line in (folder / "tree/predict_edge_table.txt").read_text().splitlines()[1:]]
    return {int(below): int(above) for above, below, _ in lines}


def path_of(parent: dict[int, int], item: int) -> list[int]:
    """The item and its ancestors but the root."""
    found = [item]
    while parent[parent[found[-1]]] >= 0:
        found.append(parent[found[-1]])
    return found


def test_the_tree_is_that_of_the_files(folder):
    tree, parent = index(folder).tree, parents(folder)
    assert [tree.size(level) for level in range(tree.depth + 1)] == [1, 2, 4, 8, 16, 20]
    ids = tree.table.features(np.arange(len(tree)))["item_id.values"]
    for number in range(len(tree)):
        above = tree.arrays["parent"][number]
        assert parent[ids[number]] == (ids[above] if above >= 0 else -1)
        below, counts = tree.children(np.array([number]))
        assert counts[0] == len(below)
        assert set(ids[below]) == {b for b, a in parent.items() if a == ids[number]}


def test_a_batch_holds_paths_and_negatives_of_every_level(folder):
    made, parent = index(folder), parents(folder)
    level_of = dict(
        zip(*(made.tree.table.features(np.arange(51))["item_id.values"], made.tree.arrays["level"]), strict=True)
    )
    for batch in loader(made).epoch(0):
        item, label = batch.features["item_id.values"].tolist(), batch.labels["label"].tolist()
        own = min(16, ROWS - 16 * (batch.position["batch"] - 1))
        positive = [row for row in range(own) if label[row]]
        assert batch.size == len(item) == own + len(positive) * (4 + 15)
        for place, row in enumerate(positive):
            path = path_of(parent, item[row])
            first = own + 4 * place
            assert item[first : first + 4] == path[:0:-1]
            assert label[first : first + 4] == [1] * 4
            first = own + 4 * len(positive) + 15 * place
            negatives = item[first : first + 15]
            assert label[first : first + 15] == [0] * 15
            # Two nodes on level 1: one other, whatever is asked for.
            assert [level_of[node] for node in negatives] == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5]
            assert len(set(negatives)) == 15
            assert not set(negatives) & set(path)
            # The user's features are those of the row.
            rows = [row, own + 4 * place, own + 4 * len(positive) + 15 * place + 7]
            assert len({batch.features["user_id.values"][r].item() for r in rows}) == 1
            lengths = batch.features["hist__item_id.lengths"].tolist()
            steps = [
                batch.features["hist__item_id.values"][sum(lengths[:r]) : sum(lengths[: r + 1])].tolist() for r in rows
            ]
            assert steps[0] == steps[1] == steps[2]
        cates = batch.features["cate.values"].tolist()
        assert all(cate == CATE[node] for node, cate in zip(item, cates, strict=True) if node < ITEMS)


def test_rows_do_not_depend_on_workers_or_on_where_one_goes_on(folder):
    made = index(folder, more="remain_ratio: 0.5")
    whole = list(loader(made).epoch(1))
    with loader(made, num_workers=2) as other:
        assert all(same(a, b) for a, b in zip(whole, other.epoch(1), strict=True))
    rest = list(loader(made).epoch(1, position=whole[2].position))
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))
    assert not same(whole[0], next(iter(loader(made).epoch(2))))


def same(a, b) -> bool:
    return a.size == b.size and all((a.features[name] == b.features[name]).all() for name in a.features)


def test_weights_follow_their_rows_and_without_labels_all_rows_are_positive(folder):
    made = index(folder, label='sample_weight_fields: "weight"')
    batch = next(iter(loader(made, shuffle=False).epoch(0)))
    assert batch.size == 16 * (1 + 4 + 15)
    assert batch.labels[POSITIVE].tolist() == [1.0] * 80 + [0.0] * 240
    assert batch.weights["weight"][16:20].tolist() == [1.0] * 4
    assert batch.weights["weight"][-15:].tolist() == [16.0] * 15


def test_levels_are_kept_by_ratio_and_kind():
    assert LevelChoice.of(1.0, "UNIFORM", 5) is None
    assert LevelChoice.of(0.5, "UNIFORM", 5).probabilities == (0.25,) * 4
    assert LevelChoice.of(0.5, "ARITHMETIC", 5).probabilities == (0.1, 0.2, 0.3, 0.4)
    # 1/4, 1/3, 1/2, 1 of their sum 25/12.
    assert LevelChoice.of(0.5, "RECIPROCAL", 5).probabilities == pytest.approx((0.12, 0.16, 0.24, 0.48))
    choice = LevelChoice.of(0.5, "RECIPROCAL", 5)
    levels = np.array([choice(np.random.default_rng(seed)) for seed in range(2000)])
    assert levels.shape == (2000, 2)
    assert (levels[:, 0] < levels[:, 1]).all()
    assert (levels == 4).mean() > (levels == 1).mean()


def test_the_leaves_are_learned_from_whatever_levels_are_kept(folder):
    batch = next(iter(loader(index(folder, more="remain_ratio: 0.25", label=""), shuffle=False).epoch(0)))
    kept = batch.labels[POSITIVE].sum() / 16 - 1
    assert kept == 1
    leaf = batch.features["item_id.values"] < ITEMS
    assert leaf.sum() == 16 * (1 + 5)
    full = next(iter(loader(index(folder, more="remain_ratio: 0.25", label=""), training=False).epoch(0)))
    assert full.size == 16 * (1 + 4 + 15)


def test_weights_of_nodes_are_those_of_the_draws(folder):
    made = index(folder, label="")
    lines = (folder / "tree/node_table.txt").read_text().splitlines()
    weighted = folder / "weighted"
    weighted.mkdir(exist_ok=True)
    for name in ("edge_table.txt", "predict_edge_table.txt"):
        (weighted / name).write_text((folder / "tree" / name).read_text())
    rows = [line.split("\t") for line in lines]
    heavy = [[i, "1" if i in ("3", "5") or int(i) >= ITEMS or int(i) < 0 else "0", a] for i, _, a in rows[1:]]
    (weighted / "node_table.txt").write_text("\n".join("\t".join(row) for row in [rows[0], *heavy]) + "\n")
    made = index(folder, label="", tree="weighted")
    batch = next(iter(loader(made, shuffle=False).epoch(0)))
    leaves = batch.features["item_id.values"][batch.labels[POSITIVE] == 0]
    assert set(leaves[leaves < ITEMS].tolist()) == {3, 5}


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("node_table.txt", ("1.0\t2,", "1.0\tx,"), r"node_table.txt.*'x' is no level"),
        ("node_table.txt", ("\t1\t5,0,", "\t1\t5,0,7,"), r"has 4 attributes"),
        ("predict_edge_table.txt", ("20\t21\t1\n", ""), "have no parent"),
        ("predict_edge_table.txt", ("20\t21\t1\n", "20\t21\t1\n20\t21\t1\n"), "row 2.*21 has a parent already"),
        ("predict_edge_table.txt", ("20\t21\t1\n", "21\t20\t1\n"), "row 1.*20 is not one level below"),
        ("predict_edge_table.txt", ("20\t21\t1\n", "20\t999\t1\n"), "row 1.*999 is not among the nodes"),
        ("edge_table.txt", ("\t1\n", "\t1\n0\t20\t1\n"), "1 leaves have no edge to each of their 4"),
        ("edge_table.txt", ("\t1\n", "\t1\n999\t20\t1\n"), "999 is no node"),
    ],
)
def test_wrong_files_are_told_with_their_row(folder, tmp_path, name, change, text):
    (tmp_path / "tree").mkdir()
    for each in ("node_table.txt", "edge_table.txt", "predict_edge_table.txt"):
        content = (folder / "tree" / each).read_text()
        if each == name:
            old = change[0]
            if each == "edge_table.txt":
                header, _, rest = content.partition("\n")
                content = header + "\n" + change[1].removeprefix("\t1\n") + rest
            else:
                old = old.replace("1.0", "1")
                assert old in content
                content = content.replace(old, change[1].replace("1.0", "1"), 1)
        (tmp_path / "tree" / each).write_text(content)
    (tmp_path / "rows.parquet").symlink_to(folder / "rows.parquet")
    with pytest.raises(DataError, match=f"(?s){text}"):
        _ = index(tmp_path).tree


def test_an_item_outside_the_tree_is_a_wrong_row(folder, tmp_path):
    table = pq.read_table(folder / "rows.parquet")
    items = table["item_id"].to_numpy().copy()
    items[41] = 21  # an inner node
    wrong = table.set_column(table.column_names.index("item_id"), "item_id", pa.array(items))
    wrong = wrong.set_column(table.column_names.index("label"), "label", pa.array(np.ones(ROWS, np.int64)))
    pq.write_table(wrong, tmp_path / "rows.parquet", row_group_size=32)
    (tmp_path / "tree").symlink_to(folder / "tree")
    with pytest.raises(DataError, match=r"row 41.*21 is no item of the tree"):
        list(loader(index(tmp_path), shuffle=False).epoch(0))
    made = index(tmp_path)
    made.config.data_config.bad_rows = 1
    kept = loader(made, shuffle=False)
    assert sum(b.labels["label"].sum().item() for b in kept.epoch(0)) == 99 * 5
    assert kept.skipped.rows == 1


def test_a_feature_of_both_sides_is_refused(folder):
    made = index(folder)
    features = build_features(made.config)
    features[0].inputs = ("user_id", "cate")  # as those of a python_feature can be
    with pytest.raises(ConfigError, match='reads "cate" of the node and "user_id" of the user'):
        TreeIndex(made.config, features)


def test_the_number_of_levels_must_be_the_trees(folder):
    made = index(folder)
    made.message.layer_num_sample.append(3)
    with pytest.raises(ConfigError, match="has 7 levels, the tree has 6"):
        made.training()


def test_rows_are_taken_with_all_that_is_jagged():
    features = {
        "one.values": np.array([5, 6, 7]), "one.lengths": np.array([1, 1, 1], np.int32),
        "many.values": np.array([1, 2, 3]), "many.lengths": np.array([2, 0, 1], np.int32),
        "many.weights": np.array([0.1, 0.2, 0.3]),
        "dense.values": np.array([[1.0], [2.0], [3.0]]),
        "steps.values": np.arange(5), "steps.lengths": np.array([2, 1, 0], np.int32),
        "steps.inner_lengths": np.array([1, 2, 2], np.int32),
    }  # fmt: skip
    found = take_rows(features, ["one", "many", "dense", "steps"], np.array([2, 0, 0]))
    assert found["one.values"].tolist() == [7, 5, 5]
    assert found["many.values"].tolist() == [3, 1, 2, 1, 2]
    assert found["many.lengths"].tolist() == [1, 2, 2]
    assert found["many.weights"].tolist() == [0.3, 0.1, 0.2, 0.1, 0.2]
    assert found["dense.values"].tolist() == [[3.0], [1.0], [1.0]]
    assert found["steps.values"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found["steps.inner_lengths"].tolist() == [1, 2, 1, 2]


def test_negatives_are_never_an_ancestor_on_any_of_many_draws(folder):
    made = index(folder)
    sampler = made.training().sampler
    sampler = replace(sampler, counts=tuple(max(0, made.tree.size(level) - 1) for level in range(6)))
    leaves = made.tree.leaves.astype(np.int64)
    above, others = sampler(leaves, np.random.default_rng(0))
    assert others.shape == (ITEMS, 1 + 3 + 7 + 15 + 19)
    for own, path, drawn in zip(leaves, above, others, strict=True):
        assert not np.isin(drawn, [own, *path]).any()
        assert len(set(drawn)) == len(drawn)
