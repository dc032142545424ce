from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.features.helpers import encode, feature, features

IDS = 'sequence_id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 10 sequence_length: 3 %s }'
RAW = 'sequence_raw_feature { feature_name: "f" expression: "user:c" sequence_length: 3 %s }'


def steps(text, column, kind=None, mode="FG_NORMAL"):
    encoded = encode(feature(text, mode), column, kind)
    assert encoded.bad is None, encoded.reason
    assert encoded.lengths.dtype == np.int32
    inner = None if encoded.inner_lengths is None else encoded.inner_lengths.tolist()
    return (encoded.values.tolist(), encoded.lengths.tolist()) + (() if inner is None else (inner,))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], [], None, [3]]),
        pa.array([[1, 2], [], None, [3]], pa.large_list(pa.int32())),
        pa.array([["1", "2"], [], None, ["3"]]),
        pa.array([[[1], [2]], [], None, [[3]]]),
        pa.array(["1;2", "", None, "3"]),
        pa.array(["1;2", "", None, "3"]).dictionary_encode(),
        pa.array([["1", "2"], [], None, ["3"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    ],
    ids=lambda c: str(c.type),
)
def test_the_same_steps_in_every_arrow_type(column):
    assert steps(IDS % "", column) == ([1, 2, 3], [2, 0, 0, 1])


def test_sequences_of_one_step_need_no_list():
    assert steps(IDS % "", ["1", "", None, "2"]) == ([1, 2], [1, 0, 0, 1])
    assert steps(IDS % "", [1, None]) == ([1], [1, 0])


def test_fixed_size_lists():
    column = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
    assert steps(IDS % "", column) == ([1, 2, 3, 4], [2, 0, 2])


def test_a_step_without_value_takes_the_default_or_0():
    assert steps(IDS % "", [[1, None, 2]]) == ([1, 0, 2], [3])
    assert steps(IDS % "", ["1;;2", ";"]) == ([1, 0, 2, 0, 0], [3, 2])
    assert steps(IDS % 'default_value: "9"', ["1;;2", ""]) == ([1, 9, 2], [3, 0])
    assert steps(IDS % "", [[None, None]], pa.list_(pa.null())) == ([0, 0], [2])


def test_long_sequences_keep_their_first_steps():
    assert steps(IDS % "", [[1, 2, 3, 4, 5], [6], [7, 8, 9, 0]]) == ([1, 2, 3, 6, 7, 8, 9], [3, 1, 3])
    assert steps(IDS % "", ["1;2;3;4;5", "6"]) == ([1, 2, 3, 6], [3, 1])


def test_long_sequences_keep_their_last_steps_on_request():
    text = IDS % "sequence_keep: LAST"
    assert steps(text, [[1, 2, 3, 4, 5], [6], [], [7, 8, 9, 0]]) == ([3, 4, 5, 6, 8, 9, 0], [3, 1, 0, 3])


def test_steps_that_are_cut_off_cannot_be_wrong():
    assert steps(IDS % "", [[1, 2, 3, 99]]) == ([1, 2, 3], [3])


def test_a_wrong_step_marks_its_row():
    for column in ([[1, 2], [], [3, 10], [4]], ["1;2", "", "3;x", "4"]):
        assert encode(feature(IDS % ""), column).bad.tolist() == [False, False, True, False]


def test_steps_of_several_ids():
    text = IDS % 'value_dim: 0 separator: "|"'
    assert feature(text).multi_value_steps
    expected = ([1, 2, 3, 0, 4], [2, 0, 2], [2, 1, 1, 1])
    assert steps(text, ["1|2;3", "", ";4"]) == expected
    assert steps(text, [[[1, 2], [3]], [], [[], [4]]]) == expected
    assert steps(text, [["1|2", "3"], None, [None, "4"]]) == expected
    assert steps(text, [[1, 2], [3]], pa.list_(pa.int64())) == ([1, 2, 3], [2, 1], [1, 1, 1])


def test_more_ids_than_value_dim_in_a_step_mark_the_row():
    assert encode(feature(IDS % ""), [[[1]], [[1, 2]]]).bad.tolist() == [False, True]
    assert encode(feature(IDS % "value_dim: 2"), [[[1, 2]], [[1], [1, 2, 3]]]).bad.tolist() == [False, True]


def test_inner_nesting_is_cut_by_steps():
    text = IDS % "value_dim: 0 sequence_keep: LAST"
    assert steps(text, [[[1, 2], [3], [4], [5, 6]]]) == ([3, 4, 5, 6], [3], [1, 1, 2])


def test_encoded_sequences():
    assert steps(IDS % "", ["1;2", "3"], mode="FG_NONE") == ([1, 2, 3], [2, 1])
    text = IDS % "value_dim: 0"
    assert steps(text, ["1\x032;3", ""], mode="FG_NONE") == ([1, 2, 3], [2, 0], [2, 1])


def test_dense_steps():
    expected = ([[1.0], [2.0], [3.0]], [2, 0, 0, 1])
    assert steps(RAW % "", ["1;2", "", None, "3"]) == expected
    assert steps(RAW % "", [[1, 2], [], None, [3]], pa.list_(pa.float32())) == expected
    assert steps(RAW % 'default_value: "5"', [[1.0, None]]) == ([[1.0], [5.0]], [2])
    assert encode(feature(RAW % ""), [[1.0], [float("inf")]]).bad.tolist() == [False, True]
    assert feature(RAW % "").tensors() == {"f.values": "float32", "f.lengths": "int32"}


def test_dense_steps_of_several_values():
    text = RAW % 'value_dim: 2 separator: "|"'
    expected = ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [2, 0, 1])
    assert steps(text, ["1|2;3|4", "", "5|6"]) == expected
    assert steps(text, [[[1, 2], [3, 4]], [], [[5, 6]]]) == expected
    assert steps(text, [[[1, 2], [3, 4]], [], [[5, 6]]], pa.list_(pa.list_(pa.float32(), 2))) == expected
    assert encode(feature(text), [[[1, 2]], [[1]]]).bad.tolist() == [False, True]
    assert feature(text).accepts("c", pa.list_(pa.float32())) is not None


def test_boundaries_of_steps():
    text = RAW % "embedding_dim: 4 boundaries: [1, 2]"
    assert steps(text, [[0.0, 1.0, 5.0], [], [None]]) == ([0, 1, 2, 0], [3, 0, 1])


def test_dense_vectors_are_not_copied():
    flat = pa.array(np.arange(8, dtype=np.float32))
    column = pa.ListArray.from_arrays(pa.array([0, 3, 4]), pa.FixedSizeListArray.from_arrays(flat, 2))
    encoded = encode(feature(RAW % "value_dim: 2"), column)
    assert encoded.values.__array_interface__["data"][0] == flat.buffers()[1].address


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches_and_batches_of_empty_rows(n):
    for text in (IDS % "", RAW % "", IDS % "value_dim: 0", RAW % "value_dim: 2"):
        for column in (
            pa.array([""] * n),
            pa.array([None] * n, pa.null()),
            pa.array([[]] * n, pa.list_(pa.list_(pa.int64()))),
        ):
            if feature(text).accepts("c", column.type) is None:
                encoded = encode(feature(text), column)
                assert encoded.lengths.tolist() == [0] * n
                assert encoded.bad is None
                if "value_dim: 2" in text:
                    assert encoded.values.shape == (0, 2)


GROUP = """feature_configs { sequence_feature { sequence_name: "clicks" sequence_length: 2 sequence_delim: "|"
  features { id_feature { feature_name: "item" expression: "item:iid" embedding_dim: 4 num_buckets: 10 } }
  features { raw_feature { feature_name: "price" expression: "user:p" } } } }"""


def test_a_sequence_feature_names_and_reads_with_its_prefix():
    item, price = features(GROUP)
    assert (item.name, item.inputs, item.side) == ("clicks__item", ("clicks__iid",), "item")
    assert (price.name, price.inputs, price.side) == ("clicks__price", ("clicks__p",), "user")
    assert item.is_sequence
    assert (item.sequence_length, item.sequence_name) == (2, "clicks")
    assert item.table.name == "clicks__item_emb"
    encoded = encode(item, ["1|2|3", ""])
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([1, 2], [2, 0])
    assert features(GROUP, "FG_NONE")[0].inputs == ("clicks__item",)


def test_sequence_fields_say_which_columns_belong_to_the_sequence():
    text = GROUP.replace('expression: "user:p"', 'expression: "user:p" sequence_fields: "%s"')
    assert features(text % "p")[1].inputs == ("clicks__p",)
    assert features(text % "other")[1].inputs == ("p",)


VECTOR_TYPES = [
    pa.list_(pa.list_(pa.float32())),
    pa.list_(pa.list_(pa.float32(), 2)),
    pa.list_(pa.list_(pa.float16(), 2)),
    pa.large_list(pa.list_(pa.float64(), 2)),
    pa.list_(pa.list_(pa.float32(), 2), 2),
]


@pytest.mark.parametrize("kind", VECTOR_TYPES, ids=str)
def test_steps_of_vectors_in_every_list_type(kind):
    column = pa.array([[[1, 2], [3, 4]], None, [[5, 6], None]], kind)
    expected = [[1, 2], [3, 4], [5, 6], [0, 0]], [2, 0, 2]
    assert steps(RAW % "value_dim: 2", column) == expected
    assert steps(RAW % "value_dim: 2", column.slice(1)) == (expected[0][2:], [0, 2])


def test_a_request_has_vectors_of_one_width():
    assert feature(RAW % "value_dim: 300").arrow_type("c") == pa.list_(pa.list_(pa.float32(), 300))
    assert feature(RAW % "").arrow_type("c") == pa.list_(pa.float32())
