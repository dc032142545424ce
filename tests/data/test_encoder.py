from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from rec.config.errors import DataError
from rec.data.encoder import Arrays, BadRows, Encoder
from tests.features.helpers import config

TEXT = """
feature_configs { id_feature { feature_name: "item" expression: "item:i" num_buckets: 10 embedding_dim: 4 %s } }
feature_configs { raw_feature { feature_name: "price" expression: "item:p" } }
feature_configs { sequence_feature { sequence_name: "clicks" sequence_length: 3
  features { id_feature { feature_name: "i" expression: "item:i" num_buckets: 10 embedding_dim: 4 } }
  features { raw_feature { feature_name: "t" expression: "user:t" } } } }
model_config { metrics { grouped_auc { grouping_key: "item" } } metrics { grouped_auc { grouping_key: "user" } } }
"""
DATA = 'label_fields: "click" label_fields: "buy" sample_weight_fields: "w"'


def batch(**changes):
    columns = {
        "i": pa.array([1, 2, 3]),
        "p": pa.array([0.5, 1.5, 2.5]),
        "clicks__i": pa.array([[1, 2], [], [3]]),
        "clicks__t": pa.array([[0.1, 0.2], [], [0.3]]),
        "click": pa.array([0, 1, 1]),
        "buy": pa.array([0.0, 0.5, 1.0]),
        "w": pa.array([1, 2, 3]),
        "user": pa.array(["a", "b", "a"]),
        "unused": pa.array([None, None, None]),
    }
    columns.update({k: v if isinstance(v, pa.Array) else pa.array(v) for k, v in changes.items()})
    return pa.RecordBatch.from_pydict(columns)


def encoder(text="", mode="FG_NORMAL", **kwargs):
    return Encoder.from_config(config(TEXT % text, mode, DATA), **kwargs)


def test_a_batch_by_hand():
    arrays = encoder().encode(batch())
    assert {k: v.tolist() for k, v in arrays.features.items()} == {
        "item.values": [1, 2, 3],
        "item.lengths": [1, 1, 1],
        "price.values": [[0.5], [1.5], [2.5]],
        "clicks__i.values": [1, 2, 3],
        "clicks__i.lengths": [2, 0, 1],
        "clicks__t.values": [[np.float32(0.1)], [np.float32(0.2)], [np.float32(0.3)]],
        "clicks__t.lengths": [2, 0, 1],
    }
    assert arrays.labels["click"].tolist() == [0.0, 1.0, 1.0]
    assert arrays.labels["buy"].tolist() == [0.0, 0.5, 1.0]
    assert arrays.weights["w"].tolist() == [1.0, 2.0, 3.0]
    assert arrays.size == 3
    assert arrays.keys["item"].tolist() == [1, 2, 3]
    a, b, again = arrays.keys["user"]
    assert a == again != b


def test_what_a_reader_must_read():
    assert encoder().columns == ["i", "p", "clicks__i", "clicks__t", "click", "buy", "w", "user"]
    assert encoder(with_labels=False).columns == ["i", "p", "clicks__i", "clicks__t"]
    assert encoder(mode="FG_NONE").columns[:4] == ["item", "price", "clicks__i", "clicks__t"]


def test_names_and_dtypes_are_as_declared():
    one = encoder()
    arrays = one.encode(batch())
    assert {k: str(v.dtype) for k, v in arrays.features.items()} == one.tensors()
    assert {str(v.dtype) for v in [*arrays.labels.values(), *arrays.weights.values()]} == {"float32"}
    assert {str(v.dtype) for v in arrays.keys.values()} == {"int64"}


def test_without_labels_none_are_read():
    rows = batch().select(["i", "p", "clicks__i", "clicks__t"])
    arrays = encoder(with_labels=False).encode(rows)
    assert (arrays.labels, arrays.weights, arrays.keys, arrays.size) == ({}, {}, {}, 3)


def test_wrong_rows_are_told_together():
    with pytest.raises(BadRows) as caught:
        encoder().encode(batch(i=[1, 99, 3], buy=[0.0, 0.5, float("nan")], w=[1.0, -1.0, 1.0]))
    assert caught.value.mask.tolist() == [False, True, True]
    reasons = {(r.column, r.row, r.value) for r in caught.value.reasons}
    assert reasons == {("i", 1, "99"), ("buy", 2, "nan"), ("w", 1, "-1.0")}
    assert 'row 1, column "i": 99 is no integer in [0, 10)' in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.mask.tolist(), again.reasons) == ([False, True, True], caught.value.reasons)


def test_good_rows_encode_the_same_after_the_wrong_ones_are_left_out():
    rows = batch(i=[1, 99, 3])
    with pytest.raises(BadRows) as caught:
        encoder().encode(rows)
    kept = encoder().encode(rows.filter(pa.array(~caught.value.mask)))
    assert kept.features["item.values"].tolist() == [1, 3]
    assert kept.features["clicks__i.lengths"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("name", "values"),
    [("click", [0, None, 1]), ("buy", [0.0, float("inf"), 1.0]), ("w", [1.0, -0.5, 1.0]), ("w", [1.0, None, 1.0])],
)
def test_labels_and_weights_that_are_wrong_rows(name, values):
    with pytest.raises(BadRows) as caught:
        encoder().encode(batch(**{name: values}))
    assert caught.value.mask.tolist() == [False, True, False]
    assert caught.value.first.column == name


def test_labels_of_several_values():
    arrays = encoder().encode(batch(buy=[[0, 1], [1, 1], [0, 0]]))
    assert arrays.labels["buy"].tolist() == [[0, 1], [1, 1], [0, 0]]
    assert arrays.labels["buy"].dtype == np.float32
    for wrong in ([[0, 1], [1], [0, 0]], [[0, 1], None, [0, 0]], [[0, 1], [1, None], [0, 0]]):
        with pytest.raises(BadRows) as caught:
            encoder().encode(batch(buy=wrong))
        assert caught.value.mask.tolist() == [False, True, False]


def test_bool_labels():
    assert encoder().encode(batch(click=[True, False, True])).labels["click"].tolist() == [1.0, 0.0, 1.0]


def test_steps_of_one_sequence_must_agree():
    with pytest.raises(BadRows, match='has 1 steps, but "clicks__i" of the same sequence has 2') as caught:
        encoder().encode(batch(clicks__t=[[0.1], [], [0.3]]))
    assert caught.value.mask.tolist() == [True, False, False]


def test_sequences_of_one_group_must_agree():
    text = """
    feature_configs { sequence_id_feature { feature_name: "a" num_buckets: 9 embedding_dim: 4 sequence_length: 5 } }
    feature_configs { sequence_id_feature { feature_name: "b" num_buckets: 9 embedding_dim: 4 sequence_length: 5 } }
    model_config { feature_groups { group_name: "%s" feature_names: ["a", "b"] group_type: %s } }"""
    rows = pa.RecordBatch.from_pydict({"a": [[1]], "b": [[1, 2]]})
    with pytest.raises(BadRows):
        Encoder.from_config(config(text % ("s", "SEQUENCE"))).encode(rows)
    Encoder.from_config(config(text % ("d", "DEEP"))).encode(rows)


def test_a_missing_column_names_who_reads_it_and_the_nearest():
    rows = batch().rename_columns(["i", "pp", "clicks__i", "clicks__t", "click", "buy", "w", "user", "unused"])
    with pytest.raises(DataError, match='column "p": missing; feature "price" reads it; did you mean "pp"'):
        encoder().encode(rows)
    with pytest.raises(DataError, match='column "buy": missing; a label reads it'):
        encoder().encode(batch().drop_columns(["buy"]))


@pytest.mark.parametrize(
    ("name", "column", "match"),
    [
        ("i", pa.array([[[1]], [[2]], [[3]]]), 'feature "item" accepts integer, string'),
        ("i", pa.array([{"a": 1}] * 3), "has type struct<a: int64>"),
        ("p", pa.array([0, 1, 2], pa.timestamp("s")), 'feature "price" accepts number'),
        ("p", pa.array([[("a", 1.0)]] * 3, pa.map_(pa.string(), pa.float32())), "accepts number"),
        ("click", pa.array(["0", "1", "1"]), "a label accepts"),
        ("w", pa.array([[1.0], [2.0], [3.0]]), "a sample weight accepts"),
        ("user", pa.array([["a"], ["b"], ["c"]]), "a grouping key accepts"),
    ],
)
def test_types_that_cannot_be_used_are_named(name, column, match):
    with pytest.raises(DataError, match=match) as caught:
        encoder().encode(batch(**{name: column}))
    assert caught.value.column == name


def test_a_column_that_stands_twice_is_an_error():
    rows = pa.RecordBatch.from_arrays([*batch().columns, pa.array([1, 2, 3])], names=[*batch().schema.names, "p"])
    with pytest.raises(DataError, match="stands 2 times"):
        encoder().encode(rows)


def test_columns_may_change_their_type_between_batches():
    one = encoder()
    first = one.encode(batch())
    second = one.encode(batch(i=["1", "2", "3"], clicks__i=["1;2", "", "3"]))
    for name, array in first.features.items():
        np.testing.assert_array_equal(array, second.features[name])
    with pytest.raises(DataError):
        one.encode(batch(click=["0", "1", "1"]))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_rows_of_a_batch_are_independent(n):
    whole = encoder().encode(batch())
    part = encoder().encode(batch().slice(n, 1))
    np.testing.assert_array_equal(part.features["item.values"], whole.features["item.values"][n : n + 1])
    np.testing.assert_array_equal(part.features["price.values"], whole.features["price.values"][n : n + 1])
    np.testing.assert_array_equal(part.features["clicks__i.lengths"], whole.features["clicks__i.lengths"][n : n + 1])
    assert part.keys["user"][0] == whole.keys["user"][n]


def test_an_empty_batch():
    arrays = encoder().encode(batch().slice(0, 0))
    assert arrays.size == 0
    assert arrays.features["price.values"].shape == (0, 1)
    assert arrays.features["clicks__t.values"].shape == (0, 1)


def test_a_pickled_encoder_encodes_the_same():
    one = encoder()
    one.encode(batch())
    data = pickle.dumps(one)
    assert len(data) < 20_000
    again: Arrays = pickle.loads(data).encode(batch())
    for name, array in one.encode(batch()).features.items():
        np.testing.assert_array_equal(array, again.features[name])


def test_masked_rows_miss_the_features_that_use_the_mask():
    arrays = encoder('use_mask: true default_value: "7"').encode(batch(), mask=np.array([False, True, True]))
    assert arrays.features["item.values"].tolist() == [1, 7, 7]
    assert arrays.features["price.values"].tolist() == [[0.5], [1.5], [2.5]]
    assert arrays.features["clicks__i.values"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1], [2], [3]]),
        pa.array([[1], [2], [3]], pa.list_(pa.int64(), 1)),
        pa.array(["1", "2", "3"]),
        pa.array(["1", "2", "3"]).dictionary_encode(),
    ],
    ids=lambda c: str(c.type),
)
def test_the_mask_hides_every_arrow_type(column):
    arrays = encoder("use_mask: true", with_labels=False).encode(batch(i=column), mask=np.array([False, True, False]))
    assert arrays.features["item.values"].tolist() == [1, 3]
    assert arrays.features["item.lengths"].tolist() == [1, 0, 1]


def test_features_read_the_output_of_features():
    text = """
    feature_configs { id_feature { feature_name: "age_id" expression: "feature:age" num_buckets: 3 embedding_dim: 4 } }
    feature_configs { raw_feature { feature_name: "age" expression: "user:a" boundaries: [18, 60] embedding_dim: 4
      stub_type: true } }
    feature_configs { raw_feature { feature_name: "log" expression: "feature:scaled" normalizer: "method=log10" } }
    feature_configs { raw_feature { feature_name: "scaled" expression: "user:x"
      normalizer: "method=minmax,min=0,max=10" } }"""
    one = Encoder.from_config(config(text, "FG_DAG"))
    arrays = one.encode(pa.RecordBatch.from_pydict({"a": [10, 20, 70], "x": [10.0, 100.0, None]}))
    assert arrays.features["age_id.values"].tolist() == [0, 1, 2]
    assert arrays.features["log.values"].tolist() == [[0.0], [1.0], [-10.0]]
    assert "age.values" not in arrays.features
    assert set(one.tensors()) == set(arrays.features)
    assert one.columns == ["a", "x"]


def test_keys_of_every_type():
    one = Encoder([], key_fields=["k"])

    def keys(values, kind=None):
        column = values if isinstance(values, pa.Array) else pa.array(values, kind)
        return one.encode(pa.RecordBatch.from_arrays([column], ["k"])).keys["k"].tolist()

    assert keys([5, -1]) == [5, -1]
    assert keys([2**63 + 1], pa.uint64()) == [-(2**63) + 1]
    for values, kind in (
        (["a", None, "a", "b", None], pa.string()),
        ([1.5, None, 1.5, 2.0, float("nan")], pa.float64()),
        ([True, None, True, False, None], pa.bool_()),
        ([1, None, 1, 2, None], pa.timestamp("us")),
        ([1, None, 1, 2, None], pa.date32()),
        ([1, None, 1, 2, None], pa.int32()),
    ):
        a, none, again, b, none_again = keys(values, kind)
        assert a == again
        assert none == none_again
        assert len({a, b, none}) == 3
    words = pa.array(["a", None, "b"]).dictionary_encode()
    assert keys(words) == keys(["a", None, "b"])
    assert keys([0.0, -0.0])[0] == keys([-0.0, 0.0])[0]
    assert keys([None], pa.null()) == keys([None], pa.string())


def test_request_schema_is_accepted():
    one = encoder(with_labels=False)
    schema = one.request_schema()
    assert schema.names == one.columns
    one.check_schema(schema)
    row = pa.RecordBatch.from_pylist([{"i": [1], "p": 2.0, "clicks__i": [1], "clicks__t": [0.5]}], schema=schema)
    assert one.encode(row).features["item.values"].tolist() == [1]


def test_an_asset_folder_replaces_that_of_the_config(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    vocab = tmp_path / "here" / "brands.txt"
    vocab.write_text("nike\nadidas\n")
    text = f"""feature_configs {{ id_feature {{ feature_name: "brand" expression: "item:b" embedding_dim: 4
      vocab_file: "brands.txt" asset_dir: "{tmp_path / "here"}" default_bucketize_value: 0 }} }}"""
    before = Encoder.from_config(config(text))
    assert before.assets() == {"brand.vocab_file": str(vocab)}
    vocab.rename(tmp_path / "there" / "brands.txt")
    rows = pa.RecordBatch.from_pydict({"b": ["adidas", "nike", "puma"]})
    after = Encoder.from_config(config(text), asset_dir=str(tmp_path / "there"))
    assert after.encode(rows).features["brand.values"].tolist() == [1, 0, 0]
    # the words are read once: a running encoder does not need its file
    assert before.encode(rows).features["brand.values"].tolist() == [1, 0, 0]
    assert pickle.loads(pickle.dumps(before)).encode(rows).features["brand.values"].tolist() == [1, 0, 0]


def test_a_feature_that_reads_a_sample_weight_is_suspicious():
    text = 'feature_configs { raw_feature { feature_name: "f" expression: "user:click" embedding_dim: 3 } }'
    notes = Encoder.from_config(config(text, data='sample_weight_fields: "click"')).notes()
    assert any("which is a sample weight" in n for n in notes)
    assert any("embedding_dim has no effect" in n for n in notes)


def test_wrong_text_that_is_no_text_can_be_shown():
    rows = batch(i=pa.array([b"1", b"\xff", b"2"]).cast(pa.string(), safe=False))
    with pytest.raises(BadRows, match="text that is not UTF-8 is no integer"):
        encoder().encode(rows)
