"""Item files, the encoded catalogue, and what is said of files that are wrong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format

from rec.config.errors import DataError
from rec.data.edges import Edges
from rec.data.encoder import Encoder
from rec.data.item_file import ItemFile, TableFile
from rec.data.items import ItemTable
from rec.data.shared import SharedArrays
from rec.features.build import build_features
from rec.protos import pipeline_pb2

CONFIG = """
data_config { dataset_type: ParquetDataset fg_mode: FG_NORMAL }
feature_configs { id_feature { feature_name: "item" expression: "item:item_id" num_buckets: 100 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "word" expression: "item:word" hash_bucket_size: 50 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "tags" expression: "item:tags" num_buckets: 20 embedding_dim: 4
  separator: "|" } }
feature_configs { raw_feature { feature_name: "price" expression: "item:price" } }
"""
ATTRIBUTES = ("item_id", "word", "tags", "price")
# Ids not in order; item 7 has no tags.
ROWS = [
    (30, 1.0, "red", "1|2", 0.5),
    (7, 3.0, "blue", "", 2.0),
    (11, 0.0, "red", "3", 1.5),
    (2, 4.0, "green", "4|5|6", 4.0),
]


@pytest.fixture
def features():
    return build_features(text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig()))


def text_file(folder: Path, rows=ROWS, name: str = "items.txt") -> str:
    lines = ["id:int64\tweight:float\tattrs:string"]
    lines += [f"{i}\t{w}\t{i}:{word}:{tags}:{price}" for i, w, word, tags, price in rows]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def columns(rows=ROWS) -> pa.Table:
    i, w, word, tags, price = (list(c) for c in zip(*rows, strict=True))
    return pa.table({"item_id": i, "weight": w, "word": word, "tags": tags, "price": price})


def parquet_file(folder: Path, rows=ROWS) -> str:
    pq.write_table(columns(rows), folder / "items.parquet", row_group_size=3)
    return str(folder / "items.parquet")


def csv_file(folder: Path) -> str:
    frame = columns().to_pydict()
    lines = [",".join(frame)] + [",".join(map(str, row)) for row in zip(*frame.values(), strict=True)]
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "items.csv")


def table(path: str, features, **settings) -> ItemTable:
    file = ItemFile(path, id_field="item_id", attributes=ATTRIBUTES)
    return ItemTable(file, features, id_type=pa.int64(), **settings)


@pytest.mark.parametrize("write", [text_file, parquet_file, csv_file])
def test_items_of_every_format_are_what_the_encoder_says_of_the_rows(write, tmp_path: Path, features):
    found = table(write(tmp_path), features)
    assert found.arrays["key"].tolist() == [2, 7, 11, 30]
    numbers = found.find(np.array([30, 7, 2, 2, 99]))
    assert numbers.tolist() == [3, 1, 0, 0, -1]
    rows = columns().take([0, 1, 3, 3]).combine_chunks().to_batches()[0]
    expected = Encoder(features).encode(rows).features
    got = found.features(numbers[:4])
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_a_parquet_file_is_known_whatever_its_name(tmp_path: Path, features):
    expected = table(parquet_file(tmp_path), features)
    for name in ("items", "items.csv"):
        found = table(str(Path(parquet_file(tmp_path)).rename(tmp_path / name)), features)
        assert np.array_equal(found.arrays["key"], expected.arrays["key"])
        assert np.array_equal(found.log_q, expected.log_q)


def test_files_of_two_kinds_are_no_table(tmp_path: Path):
    paths = parquet_file(tmp_path), text_file(tmp_path)
    for given in (paths, paths[::-1]):
        with pytest.raises(DataError, match=r"items.parquet: is Parquet, but .*items.txt is text"):
            TableFile(",".join(given))


def test_hidden_items_are_what_the_encoder_says_of_hidden_rows(tmp_path: Path):
    hideable = CONFIG.replace('"item:word"', '"item:word" use_mask: true').replace(
        '"item:tags"', '"item:tags" use_mask: true'
    )
    features = build_features(text_format.Parse(hideable, pipeline_pb2.EasyRecConfig()))
    found = table(parquet_file(tmp_path), features)
    hidden = np.array([False, True, True, False])
    expected = Encoder(features).encode(columns().to_batches()[0], mask=hidden).features
    got = found.features(found.find(np.array([row[0] for row in ROWS])), hidden=hidden)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    # "price" is not to be hidden, and "word" of the hidden ones is not what the file says.
    assert got["price.values"].ravel().tolist() == [row[4] for row in ROWS]
    assert got["word.lengths"].tolist() == [1, 0, 0, 1]
    assert len(found) == len(found.log_q) == len(ROWS)


def test_probabilities_are_the_weights_and_a_weight_of_zero_is_never_drawn(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    np.testing.assert_allclose(np.exp(found.log_q), [0.5, 0.375, 0.0, 0.125], rtol=1e-6)
    drawn = found.draw(10_000, np.random.default_rng(0), exclude=np.zeros(0, np.int64))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 10_000, [0.5, 0.375, 0, 0.125], atol=0.02)


def test_exponent_flattens_the_weights(tmp_path: Path, features):
    found = table(text_file(tmp_path), features, exponent=0.5)
    shares = np.sqrt([4.0, 3.0, 0.0, 1.0])
    np.testing.assert_allclose(np.exp(found.log_q), shares / shares.sum(), rtol=1e-6)
    uniform = table(text_file(tmp_path), features, exponent=0)
    np.testing.assert_allclose(np.exp(uniform.log_q), [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)


def test_weights_may_be_as_large_as_numbers_are(tmp_path: Path, features):
    found = table(text_file(tmp_path, [(i, 1.5e308, "a", "1", 1.0) for i in range(4)]), features)
    np.testing.assert_allclose(found.log_q, np.log(0.25), rtol=1e-6)  # float32


def test_no_exponent_is_too_large(tmp_path: Path, features):
    found = table(text_file(tmp_path), features, exponent=1000)  # 4 ^ 1000 is no float64
    expected = {2: 0.0, 7: 1000 * np.log(0.75), 11: -np.inf, 30: -np.inf}  # 0.25 ^ 1000 is 0
    np.testing.assert_allclose(found.log_q, [expected[key] for key in found.arrays["key"].tolist()], rtol=1e-6)


def test_excluded_items_are_not_drawn_and_the_others_keep_their_proportions(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    drawn = found.draw(10_000, np.random.default_rng(0), exclude=np.array([0, 0]))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 10_000, [0, 0.75, 0, 0.25], atol=0.02)


def test_a_rare_rest_is_still_drawn(tmp_path: Path, features):
    rows = [(1, 1e9, "a", "", 1.0), (2, 1.0, "b", "", 1.0), (3, 3.0, "c", "", 1.0)]
    found = table(text_file(tmp_path, rows), features)
    drawn = found.draw(4000, np.random.default_rng(0), exclude=np.array([0]))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, [0, 0.25, 0.75], atol=0.03)


def test_where_all_are_excluded_all_are_drawn(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    assert len(found.draw(5, np.random.default_rng(0), exclude=np.arange(4))) == 5


def test_memory_is_as_stated(tmp_path: Path):
    config = text_format.Parse(CONFIG, pipeline_pb2.EasyRecConfig())
    single = [f for f in build_features(config) if f.name in ("item", "word", "price")]
    count = 10_000
    rows = pa.table(
        {"item_id": np.arange(count) % 100, "id": np.arange(count), "weight": np.arange(count) + 1.0,
         "word": ["a"] * count, "price": np.ones(count)}
    )  # fmt: skip
    pq.write_table(rows, tmp_path / "items.parquet")
    file = ItemFile(str(tmp_path / "items.parquet"), id_field="no_such", attributes=("item_id", "word", "price"))
    found = ItemTable(file, single)
    # key 8, probability 4, alias table 8, three features of 4 bytes
    assert found.arrays.nbytes / count == pytest.approx(32, rel=0.01)


def test_equal_weights_need_no_alias_table(tmp_path: Path, features):
    found = table(text_file(tmp_path, [(i, 2.0, "a", "1", 1.0) for i in range(5)]), features)
    assert "alias" not in found.arrays


def test_a_catalogue_travels_as_a_descriptor(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    sent = pickle.dumps(found.arrays)
    assert len(sent) < 2000
    other = pickle.loads(sent)
    np.testing.assert_array_equal(other["key"], found.arrays["key"])
    with pytest.raises(ValueError, match="read-only"):
        other["key"][0] = 1


def test_shared_memory_is_given_back():
    arrays = SharedArrays({"a": np.arange(5)})
    fd = arrays.fd
    del arrays
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def broken(tmp_path: Path, line: str) -> str:
    path = text_file(tmp_path)
    with open(path, "a") as file:
        file.write(line + "\n")
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("8\t1.0\t8:red:1", r'items.txt, row 4, column "attrs": has 3 attributes between .:., attr_fields names 4'),
        ("eight\t1.0\t8:red:1:1", r'items.txt, row 4, column "id:int64"'),
        ("8\t-1.0\t8:red:1:1", r'items.txt, row 4, column "weight": weight -1.0 is no finite number from 0 up'),
        ("8\tnan\t8:red:1:1", r'items.txt, row 4, column "weight"'),
        ("8\t1.0\t800:red:1:1", r'items.txt, row 4, column "item_id": .800. '),
        ("8\t1.0\t8:red:1:cheap", r'items.txt, row 4, column "price": .cheap. '),
        ("8\t1.0", r"items.txt, row 4: has 2 values, expected 3"),
        ("7\t1.0\t7:red:1:1", r"items.txt, row 4: an item of this id stands earlier in the file"),
        ("\t1.0\t7:red:1:1", r'items.txt, row 4, column "id": an item without an id'),
    ],
)
def test_a_wrong_item_is_told_with_its_row(line: str, message: str, tmp_path: Path, features):
    with pytest.raises(DataError, match=message):
        table(broken(tmp_path, line), features)


def test_ids_of_another_kind_than_the_data_become_that(tmp_path: Path, features):
    file = ItemFile(text_file(tmp_path), id_field="item_id", attributes=ATTRIBUTES)
    found = ItemTable(file, features, id_type=pa.string())
    from rec.data import targets

    assert found.find(targets.keys(pa.array(["30", "7"]))).min() >= 0


def test_files_without_what_is_needed_are_told(tmp_path: Path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"empty.txt.*not even a header"):
        ItemFile(str(tmp_path / "empty.txt"), id_field="item_id", attributes=())
    with pytest.raises(DataError, match='column "colour": no such column; an item file has'):
        ItemFile(csv_file(tmp_path), id_field="item_id", attributes=("colour",))
    with pytest.raises(DataError, match="no such file"):
        ItemFile(str(tmp_path / "absent.txt"), id_field="item_id", attributes=())


def test_joined_attributes_without_an_order_are_refused(tmp_path: Path):
    settings = {"id_field": "item_id", "attributes": ATTRIBUTES, "ordered": False}
    with pytest.raises(DataError, match=r'items.txt, column "attrs": holds all attributes, but only the attr_fields'):
        ItemFile(text_file(tmp_path), **settings)
    assert ItemFile(csv_file(tmp_path), **settings).count == len(ROWS)


def test_weights_of_zero_only_are_told(tmp_path: Path, features):
    path = text_file(tmp_path, [(i, 0.0, "a", "1", 1.0) for i in range(3)])
    with pytest.raises(DataError, match=r'items.txt, column "weight": the weights of all items are 0'):
        table(path, features)


def test_weights_that_are_no_numbers_are_told_with_their_row(tmp_path: Path, features):
    rows = columns()
    words = pa.array(["1"] * 2 + ["many"] + ["1"] * (rows.num_rows - 3))
    pq.write_table(rows.set_column(1, "weight", words), tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items.parquet, row 2, column \"weight\": weight 'many' is no number"):
        table(str(tmp_path / "items.parquet"), features)


def test_a_file_without_items_is_named(tmp_path: Path, features):
    pq.write_table(columns().slice(0, 0), tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items.parquet: has no items"):
        table(str(tmp_path / "items.parquet"), features)
    with pytest.raises(DataError, match=r"items.txt: has no items"):
        table(text_file(tmp_path, []), features)


def test_edges_by_user(tmp_path: Path, features, caplog: pytest.LogCaptureFixture):
    found = table(text_file(tmp_path), features)
    path = tmp_path / "edges.txt"
    path.write_text("userid:int64\titemid:int64\tweight:float\n5\t30\t1\n4\t7\t1\n5\t2\t1\n5\t999\t1\n")
    edges = Edges(str(path), found, user_type=pa.int64(), item_type=pa.int64())
    rows, items = edges.of(np.array([6, 5, 4, 5]))
    assert rows.tolist() == [1, 1, 2, 3, 3]
    assert items.tolist() == [0, 3, 1, 0, 3]
    assert "1 of 4 edges lead to items that the item file lacks" in caplog.text
    path.write_text("userid:int64\titemid:int64\n")
    empty = Edges(str(path), found, user_type=pa.int64(), item_type=pa.int64())
    assert len(empty.of(np.array([5]))[0]) == 0
    assert "edges.txt: has no edge to an item of the item file, so it changes nothing" in caplog.text


def test_an_edge_without_an_end_is_told_with_its_row(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    path = tmp_path / "edges.txt"
    path.write_text("userid:int64\titemid:int64\n5\t30\n4\t\n")
    with pytest.raises(DataError, match=r'edges.txt, row 1, column "itemid": an edge with an end missing'):
        Edges(str(path), found, user_type=pa.int64(), item_type=pa.int64())


def test_a_file_of_one_column_holds_no_edges(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    (tmp_path / "edges.txt").write_text("userid\n5\n")
    with pytest.raises(DataError, match=r"edges.txt: an edge has a user and an item"):
        Edges(str(tmp_path / "edges.txt"), found, user_type=pa.int64(), item_type=pa.int64())


def test_an_unreadable_end_is_told_with_its_row(tmp_path: Path, features):
    found = table(text_file(tmp_path), features)
    path = tmp_path / "edges.txt"
    path.write_text("userid\titemid\n5\t30\n4\t7\n4\tseven\n")
    with pytest.raises(DataError, match=r"edges.txt, row 2, column \"itemid\": id 'seven' is no int64"):
        Edges(str(path), found, user_type=pa.int64(), item_type=pa.int64())
