"""`python -m tools.tree build`: orders of leaves, and the files."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.tree.__main__ import main
from tools.tree.order import by_category, by_vectors, levels
from tools.tree.write import Leaves, write


def test_levels_by_hand():
    # 5 leaves halve into 2 + 3, these into 1 + 1 and 1 + 2; single ones go on with one child each.
    tree = levels(5, 2)
    assert [(level.end - level.start).tolist() for level in tree] == [[5], [2, 3], [1, 1, 1, 2], [1, 1, 1, 1, 1]]
    # Code 3 is the first grandchild of the root; its only child is 2 x 3 + 1.
    assert [level.code.tolist() for level in tree] == [[0], [1, 2], [3, 4, 5, 6], [7, 9, 11, 13, 14]]


@pytest.mark.parametrize("children", [2, 3, 5])
@pytest.mark.parametrize("count", [2, 3, 8, 9, 31, 100])
def test_every_tree_is_balanced_and_has_its_leaves_on_the_last_level(count, children):
    tree = levels(count, children)
    depth = len(tree) - 1
    assert children ** (depth - 1) < count <= children**depth
    for level in tree:
        size = level.end - level.start
        assert size.sum() == count
        assert size.max() - size.min() <= 1
    assert np.array_equal(tree[-1].start, np.arange(count))
    for above, below in itertools.pairwise(tree):
        assert set((below.code - 1) // children) == set(above.code)


def test_categories_stay_together_in_an_order_of_the_seed():
    category = np.array([7, 1, 7, 1, 3, 7])
    order = by_category(category, seed=0)
    assert sorted(order) == list(range(6))
    shown = category[order]
    assert (shown[1:] != shown[:-1]).sum() == 2  # three runs
    assert not np.array_equal(order, by_category(category, seed=3))


@pytest.mark.parametrize("children", [2, 4])
def test_clusters_of_vectors_become_subtrees(children):
    draw = np.random.default_rng(0)
    centres = np.array([[0, 0], [0, 10], [30, 0], [30, 10]])
    cluster = draw.permutation(np.repeat(np.arange(4), 16))
    order = by_vectors(centres[cluster] + draw.normal(0, 0.5, (64, 2)), children=children)
    assert sorted(order) == list(range(64))
    quarters = cluster[order].reshape(4, 16)
    assert (quarters == quarters[:, :1]).all()
    # The wide gap is cut first: 0, 1 | 2, 3.
    assert {frozenset(quarters[:2, 0] // 2), frozenset(quarters[2:, 0] // 2)} == {frozenset({0}), frozenset({1})}


def test_equal_vectors_make_a_tree_all_the_same():
    assert sorted(by_vectors(np.zeros((7, 3)), children=2)) == list(range(7))


def leaves(ids):
    count = len(ids)
    return Leaves(
        pa.array(ids),
        {"cate": pa.array(["a", "b", "b", None, ""][:count])},
        {"price": pa.array([1.0, 2.0, None, 6.0, 8.0][:count]), "stock": pa.array([1, 2, 4, 6, 8][:count])},
    )


def lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_files_by_hand(tmp_path):
    about = write(leaves([10, 11, 12, 13]), np.array([0, 1, 2, 3]), tmp_path / "tree")
    assert about == {"items": 4, "levels": [1, 2, 4], "nodes": 7, "num_buckets": 17}
    # Inner nodes are 14 (the root), 15 and 16; a mean of what is there, a whole number for whole numbers.
    assert lines(tmp_path / "tree/node_table.txt") == [
        ["id:int64", "weight:float", "feature:string"],
        ["-1", "1", "-1,14,b,3,3"],
        ["14", "1", "0,14,b,3,3"],
        ["15", "1", "1,15,a,1.5,2"],
        ["16", "1", "1,16,b,6,5"],
        ["10", "1", "2,10,a,1,1"],
        ["11", "1", "2,11,b,2,2"],
        ["12", "1", "2,12,b,,4"],
        ["13", "1", "2,13,,6,6"],
    ]
    assert lines(tmp_path / "tree/edge_table.txt")[1:] == [
        [leaf, parent, "1"] for leaf, parent in [("10", "15"), ("11", "15"), ("12", "16"), ("13", "16")]
    ]
    edges = [("-1", "14"), ("14", "15"), ("14", "16"), ("15", "10"), ("15", "11"), ("16", "12"), ("16", "13")]
    assert lines(tmp_path / "tree/predict_edge_table.txt")[1:] == [[*edge, "1"] for edge in edges]


def test_text_ids_sort_by_level(tmp_path):
    write(leaves(["x", "y", "z", "u", "v"]), np.arange(5), tmp_path / "tree")
    rows = lines(tmp_path / "tree/node_table.txt")
    assert rows[0][0] == "id:string"
    inner = [row[0] for row in rows[2:] if row[0].startswith("nonleaf#")]
    assert inner == sorted(inner)
    assert len(inner) == 1 + 2 + 4


@pytest.mark.parametrize(
    ("ids", "text"), [([1], "1 items make no tree"), ([1, 2, 2], "1 items stand twice"), ([-4, 2], "below 0")]
)
def test_wrong_items_are_refused(tmp_path, ids, text):
    with pytest.raises(DataError, match=text):
        write(leaves(ids), np.arange(len(ids)), tmp_path / "tree")


def test_an_attribute_with_the_delimiter_in_it_is_refused(tmp_path):
    wrong = Leaves(pa.array([1, 2]), {"name": pa.array(["a,b", "c"])}, {})
    with pytest.raises(DataError, match="'a,b' has ',' in it"):
        write(wrong, np.arange(2), tmp_path / "tree")


@pytest.mark.parametrize("form", ["csv", "columns", "packed"])
def test_text_files_of_items_build_the_same_tree(form, tmp_path):
    table = pa.table({"item_id": np.arange(9), "cate_id": np.arange(9) % 3, "price": np.arange(9) / 4})
    pq.write_table(table, tmp_path / "items.parquet")
    rows = list(zip(*table.to_pydict().values(), strict=True))
    header, separator, suffix = {
        "csv": ("item_id,cate_id,price", ",", "csv"),
        "columns": ("item_id:int64\tcate_id:int64\tprice:float", "\t", "txt"),
        "packed": ("id:int64\tweight:float\tattrs:string", "\t", "txt"),
    }[form]
    if form == "packed":
        rows = [(i, 1.0, f"{cate}:{price}") for i, cate, price in rows]
    text = "\n".join([header, *(separator.join(map(str, row)) for row in rows)])
    (tmp_path / f"items.{suffix}").write_text(text + "\n")
    for name in ("items.parquet", f"items.{suffix}"):
        fields = ["--item_id_field", "item_id", "--attr_fields", "cate_id", "--raw_attr_fields", "price"]
        where = ["--item_input_path", str(tmp_path / name), "--output", str(tmp_path / f"{name}.tree")]
        assert main(["build", *where, *fields, "--cate_id_field", "cate_id"]) == 0
    for name in ("node_table.txt", "edge_table.txt", "predict_edge_table.txt"):
        built = [(tmp_path / f"items.{kind}.tree" / name).read_text() for kind in ("parquet", suffix)]
        assert built[0] == built[1], name


def test_the_command_builds_by_category_and_by_vectors(tmp_path, capsys):
    items = {"item_id": np.arange(20, dtype=np.int32), "cate_id": np.arange(20) % 3}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    vectors = pa.array(np.random.default_rng(0).normal(size=(20, 4)).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": np.arange(20)[::-1], "vector": vectors}), tmp_path / "vectors.parquet")
    common = ["build", "--item_input_path", str(tmp_path / "items.parquet"), "--item_id_field", "item_id"]
    common += ["--attr_fields", "cate_id"]
    assert main([*common, "--cate_id_field", "cate_id", "--output", str(tmp_path / "first")]) == 0
    assert "item_id needs num_buckets: 51" in capsys.readouterr().out  # 19 items, inner nodes 20 + (0 to 30)
    assert main([*common, "--vectors", str(tmp_path / "vectors.parquet"), "--output", str(tmp_path / "next")]) == 0
    for name in ("first", "next"):
        assert len(lines(tmp_path / name / "node_table.txt")) == 1 + 1 + 1 + 2 + 4 + 8 + 16 + 20
    pq.write_table(pa.table({"id": np.arange(19), "vector": vectors[:19]}), tmp_path / "vectors.parquet")
    assert main([*common, "--vectors", str(tmp_path / "vectors.parquet"), "--output", str(tmp_path / "next")]) == 3
    assert "1 items have no vector, the first is 19" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    assert main([*common, "--cate_id_field", "cate_id", "--output", str(tmp_path / "mine")]) == 3
    assert (tmp_path / "mine/thesis.txt").exists()
