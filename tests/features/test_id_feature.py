from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rec.config.errors import ConfigError
from tests.features.helpers import encode, feature

# XXH64 of "a" % 1000 = 955, of "abc" = 249, of "12" = 586 (tests/features/test_hashing.py has the digests)
HASH = 'id_feature { feature_name: "f" expression: "user:c" embedding_dim: 4 hash_bucket_size: 1000 %s }'
BUCKETS = 'id_feature { feature_name: "f" expression: "item:c" embedding_dim: 4 num_buckets: 10 %s }'
WORDS = 'id_feature { feature_name: "f" expression: "item:c" embedding_dim: 4 vocab_list: ["x", "y", "7"] %s }'


def ids(text, values, kind=None, mode="FG_NORMAL"):
    encoded = encode(feature(text, mode), values, kind)
    assert encoded.values.dtype == np.int64
    assert encoded.lengths.dtype == np.int32
    assert encoded.bad is None or not encoded.bad.any(), encoded.reason
    assert encoded.values.max(initial=0) < feature(text, mode).table.rows
    return encoded.values.tolist(), encoded.lengths.tolist()


def bad(text, values, kind=None, mode="FG_NORMAL"):
    encoded = encode(feature(text, mode), values, kind)
    return encoded.bad.tolist(), encoded.reason


def test_strings_are_hashed():
    assert ids(HASH % "", ["a", "abc", "12"]) == ([955, 249, 586], [1, 1, 1])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([12]),
        pa.array([12], pa.int8()),
        pa.array([12], pa.uint64()),
        pa.array([12.0]),
        pa.array(["12"]),
        pa.array(["12"], pa.large_string()),
        pa.array([b"12"]),
        pa.array(["12"]).dictionary_encode(),
        pa.array([[12]]),
        pa.array([[12.0]], pa.list_(pa.float32())),
        pa.array([["12"]], pa.large_list(pa.string())),
        pa.array([[12]], pa.list_(pa.int32(), 1)),
        pa.array([["12"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ],
    ids=lambda c: str(c.type),
)
def test_the_same_id_in_every_arrow_type(column):
    assert ids(HASH % "", column) == ([586], [1])


def test_missing_values_have_no_id_without_a_default():
    assert ids(HASH % "", ["a", None, "", "abc"]) == ([955, 249], [1, 0, 0, 1])
    assert ids(HASH % "", [[], None, ["a", None, ""], ["a", "abc"]]) == ([955, 955, 249], [0, 0, 1, 2])
    assert ids(BUCKETS % "", [3.0, float("nan"), None]) == ([3], [1, 0, 0])
    assert ids(BUCKETS % "", [None, None], pa.null()) == ([], [0, 0])


def test_missing_values_become_the_default():
    text = HASH % 'default_value: "abc"'
    assert ids(text, ["a", None, ""]) == ([955, 249, 249], [1, 1, 1])
    assert ids(text, [[], ["a"], [None]]) == ([249, 955, 249], [1, 1, 1])
    assert ids(BUCKETS % 'default_value: "4"', [None, 2], pa.int64()) == ([4, 2], [1, 1])
    assert ids(BUCKETS % 'default_value: "4|5" separator: "|"', ["1|2", ""]) == ([1, 2, 4, 5], [2, 2])


def test_strings_split_at_the_separator():
    assert ids(BUCKETS % "", ["1\x1d2", "3", "", None, "4\x1d\x1d5"]) == ([1, 2, 3, 4, 5], [2, 1, 0, 0, 2])
    assert ids(BUCKETS % 'separator: "|"', pa.array(["1|2", "3"]).dictionary_encode()) == ([1, 2, 3], [2, 1])


def test_value_dim_1_neither_splits_nor_takes_lists_of_two():
    text = 'id_feature { feature_name: "f" embedding_dim: 4 vocab_list: "a|b" separator: "|" value_dim: 1 }'
    assert ids(text, ["a|b"]) == ([2], [1])
    marked, reason = bad(BUCKETS % "value_dim: 1", [[1], [2, 3], []])
    assert marked == [False, True, False]
    assert "more than value_dim = 1" in reason


@pytest.mark.parametrize("value", [10, -1, 2**63 - 1])
def test_an_integer_outside_num_buckets_is_a_wrong_row(value):
    marked, reason = bad(BUCKETS % "", [1, value, 9])
    assert marked == [False, True, False]
    assert "is no integer in [0, 10)" in reason


def test_an_integer_outside_num_buckets_takes_default_bucketize_value():
    assert ids(BUCKETS % "default_bucketize_value: 9", [1, 10, -1]) == ([1, 9, 9], [1, 1, 1])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "one", "2"], None),
        (["1", "1.5", "2"], None),
        (["1", "99999999999999999999", "2"], None),
        ([1.0, 1.5, 2.0], None),
        ([1.0, float("inf"), 2.0], None),
        ([[1], [2, 11], [2]], None),
        ([1, 2**64 - 1, 2], pa.uint64()),
    ],
)
def test_what_is_no_integer_is_a_wrong_row(values, kind):
    marked, _ = bad(BUCKETS % "", values, kind)
    assert marked == [False, True, False]


def test_text_of_integers_may_have_spaces_and_signs():
    assert ids(BUCKETS % "", [" 1", "+2", "3.0", "007", ""]) == ([1, 2, 3, 7], [1, 1, 1, 1, 0])


def test_a_vocabulary_starts_at_2():
    assert ids(WORDS % "", ["y", "x", "z", "", "<OOV>"]) == ([3, 2, 1, 1], [1, 1, 1, 0, 1])
    assert ids(WORDS % 'default_value: "none"', ["x", "", "none", "z"]) == ([2, 0, 0, 1], [1] * 4)
    # a default that is in the list keeps its id there
    assert ids(WORDS % 'default_value: "y"', ["", "y"]) == ([3, 3], [1, 1])
    assert feature(WORDS % "").table.rows == 5


def test_integers_find_their_decimal_word():
    assert ids(WORDS % "", [7, 8]) == ([4, 1], [1, 1])
    assert ids(WORDS % "", ["7", "07"]) == ([4, 1], [1, 1])


def test_with_default_bucketize_value_the_list_is_the_users_own():
    assert ids(WORDS % "default_bucketize_value: 2", ["x", "y", "7", "z", None]) == ([0, 1, 2, 2], [1, 1, 1, 1, 0])
    assert feature(WORDS % "default_bucketize_value: 2").table.rows == 3


DICT = (
    'id_feature { feature_name: "f" expression: "item:c" embedding_dim: 4 '
    'vocab_dict { key: "a" value: 2 } vocab_dict { key: "b" value: 5 } vocab_dict { key: "c" value: 2 } %s }'
)


def test_vocab_dict():
    assert ids(DICT % "", ["a", "b", "c", "z", ""]) == ([2, 5, 2, 1], [1, 1, 1, 1, 0])
    assert ids(DICT % 'default_value: "b"', ["b", "", "a"]) == ([0, 0, 2], [1, 1, 1])
    assert ids(DICT % "default_bucketize_value: 6", ["a", "z"]) == ([2, 6], [1, 1])
    assert feature(DICT % "").table.rows == 6
    assert feature(DICT % "default_bucketize_value: 6").table.rows == 7


def test_a_large_vocabulary_finds_every_word():
    words = " ".join(f'vocab_list: "w{i}"' for i in range(5000))
    one = feature(f'id_feature {{ feature_name: "f" expression: "item:c" embedding_dim: 4 {words} }}')
    encoded = encode(one, [f"w{i}" for i in range(5000)] + [f"v{i}" for i in range(5000)])
    assert encoded.values.tolist() == [*range(2, 5002), *[1] * 5000]


VOCAB_FILE = 'id_feature {{ feature_name: "f" embedding_dim: 4 vocab_file: "{}" default_bucketize_value: 1 }}'


@pytest.mark.parametrize(
    ("content", "expected", "rows"),
    [
        ("zero\none\ntwo\n", [2, 0, 1], 3),
        ("zero 4\r\ntwo 3\r\n", [3, 4, 1], 5),
        ("\ufeffzero\ntwo\nnew york", [1, 0, 1], 3),
    ],
)
def test_vocab_file(tmp_path, content, expected, rows):
    path = tmp_path / "vocab.txt"
    path.write_bytes(content.encode())
    assert ids(VOCAB_FILE.format(path), ["two", "zero", "what"]) == (expected, [1, 1, 1])
    assert feature(VOCAB_FILE.format(path)).table.rows == rows
    assert feature(VOCAB_FILE.format(path)).assets() == {"vocab_file": str(path)}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a\nb\na\n", 'repeats "a" in line 3'),
        (b"a\n\nb\n", "empty line 2"),
        (b"", "empty line 1"),
        (b"a\n\xff\n", "not UTF-8 at byte 2"),
        (b"a\n", "default_bucketize_value 1, but 1 ids"),
        (None, "does not exist"),
    ],
)
def test_wrong_vocab_files_are_named(tmp_path, content, match):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        feature(VOCAB_FILE.format(path))


def test_weighted_ids():
    text = BUCKETS % 'weighted: true separator: "|" default_value: "9"'
    encoded = encode(feature(text), ["1:0.5|2:2", "3", "", "4:-1"])
    assert encoded.values.tolist() == [1, 2, 3, 9, 4]
    assert encoded.lengths.tolist() == [2, 1, 1, 1]
    assert encoded.weights.tolist() == [0.5, 2.0, 1.0, 1.0, -1.0]
    assert encoded.weights.dtype == np.float32
    assert encoded.bad is None


def test_weighted_ids_in_maps_and_lists():
    text = HASH % "weighted: true"
    kind = pa.map_(pa.string(), pa.float64())
    encoded = encode(feature(text), [[("a", 0.5), ("abc", None)], [], None, [("12", 3.0)]], kind)
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([955, 249, 586], [2, 0, 0, 1])
    assert encoded.weights.tolist() == [0.5, 1.0, 3.0]
    sliced = pa.array([[("a", 9.0)], [("abc", 2.0)]], kind)[1:]
    assert encode(feature(text), sliced).weights.tolist() == [2.0]
    encoded = encode(feature(text), [["a:2", "abc:3"], [], None])
    assert (encoded.values.tolist(), encoded.weights.tolist()) == ([955, 249], [2.0, 3.0])


def test_the_last_colon_separates_the_weight():
    text = 'id_feature { feature_name: "f" expression: "item:c" embedding_dim: 4 vocab_list: "a:b" weighted: true }'
    encoded = encode(feature(text), ["a:b:2"])
    assert (encoded.values.tolist(), encoded.weights.tolist()) == ([2], [2.0])


@pytest.mark.parametrize("weight", ["nan", "inf", "x", ""])
def test_a_wrong_weight_is_a_wrong_row(weight):
    marked, reason = bad(BUCKETS % "weighted: true", ["1:1", f"2:{weight}"])
    assert marked == [False, True]
    assert "weight" in reason


def test_encoded_data_holds_ids():
    text = 'id_feature { feature_name: "f" embedding_dim: 4 hash_bucket_size: 10 %s }'
    assert ids(text % "", [3, None, 9], mode="FG_NONE") == ([3, 9], [1, 0, 1])
    assert ids(text % "", ["1\x032", "", "3"], mode="FG_NONE") == ([1, 2, 3], [2, 0, 1])
    assert ids(text % 'fg_encoded_default_value: "7"', [3, None], mode="FG_NONE") == ([3, 7], [1, 1])
    assert ids(text % 'fg_encoded_default_value: "7\\0038"', [[3], []], mode="FG_NONE") == ([3, 7, 8], [1, 2])
    marked, reason = bad(text % "", [3, 10], mode="FG_NONE")
    assert marked == [False, True]
    assert "[0, 10)" in reason
    # the raw default has the id that the raw word would have had: XXH64("a") % 10 = 5
    assert ids(text % 'default_value: "a"', [3, None], mode="FG_NONE") == ([3, 5], [1, 1])


def test_encoded_data_calls_columns_after_features():
    assert feature(HASH % "", "FG_NONE").inputs == ("f",)
    assert feature(HASH % "", "FG_BUCKETIZE").inputs == ("f",)
    assert feature(HASH % "").inputs == ("c",)


def test_bucketize_only_splits_at_the_encoded_separator():
    assert ids(HASH % 'separator: "|"', ["a\x03abc", ""], mode="FG_BUCKETIZE") == ([955, 249], [2, 0])


def test_sides_and_constants():
    assert feature(HASH % "").side == "user"
    assert feature(BUCKETS % "").side == "item"
    one = feature('id_feature { feature_name: "f" expression: "const:3" embedding_dim: 4 num_buckets: 10 }')
    assert one.inputs == ()
    encoded = one.encode(pa.RecordBatch.from_pydict({"other": [1.0, 2.0]}))
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([3, 3], [1, 1])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_slices_and_empty_batches(n):
    column = pa.array([9, 8, 7, 1, 2, 3])[3 : 3 + n]
    assert ids(BUCKETS % "", column) == ([1, 2, 3][:n], [1] * n)
    lists = pa.array([[9], [8, None], [1, 2], [], [3]])[2 : 2 + n]
    assert ids(BUCKETS % "", lists)[1] == [2, 0, 1][:n]


def test_null_rows_of_fixed_size_lists_have_no_ids():
    column = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
    assert ids(BUCKETS % "", column) == ([1, 2, 3, 4], [2, 0, 2])


def test_dictionaries_with_nulls_and_unused_wrong_words():
    words = pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 0]), pa.array(["1", "2", "unused"]))
    encoded = encode(feature(BUCKETS % ""), words)
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([1, 2, 1], [1, 0, 1, 1])
    assert encoded.bad is None
    nulls = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int32()), pa.array([], pa.string()))
    assert ids(BUCKETS % "", nulls) == ([], [0, 0])
    # a wrong word in the dictionary is no fault of a null row
    wrong_first = pa.DictionaryArray.from_arrays(pa.array([1, None]), pa.array(["wrong", "2"]))
    assert ids(BUCKETS % "", wrong_first) == ([2], [1, 0])


def test_single_integers_are_not_copied():
    column = pa.array([1, 2, 3])
    encoded = encode(feature(BUCKETS % ""), column)
    assert encoded.values.__array_interface__["data"][0] == column.buffers()[1].address
    assert encoded.lengths is encode(feature(BUCKETS % ""), column).lengths


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('id_feature { feature_name: "f" embedding_dim: 4 }', "does not say how values become ids"),
        ('id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 hash_bucket_size: 3 }', "one way"),
        ('id_feature { feature_name: "f" num_buckets: 3 }', "no embedding_dim"),
        ('id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 0 }', "one row or more"),
        ('id_feature { feature_name: "f" expression: "c" embedding_dim: 4 num_buckets: 3 }', 'write "<side>:<column>"'),
        ('id_feature { feature_name: "f" expression: "usr:c" embedding_dim: 4 num_buckets: 3 }', 'did you mean "user"'),
        ('id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 pooling: "max" }', 'pooling "max"'),
        ('id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 data_type: "FP8" }', 'data_type "FP8"'),
        ('id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 default_value: "3" }', "is no integer in"),
        ('id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 default_bucketize_value: 3 }', "below 3"),
        ('id_feature { feature_name: "f" embedding_dim: 4 vocab_list: ["a", "a"] }', 'repeats "a"'),
        ('id_feature { feature_name: "f" embedding_dim: 4 vocab_list: [""] }', "empty word"),
        ('id_feature { feature_name: "f" embedding_dim: 4 vocab_file: "x" }', "no default_bucketize_value"),
        ('sequence_id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 }', "no sequence_length"),
        (
            'sequence_id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 3 sequence_length: 3 weighted: 1 }',
            "weighted",
        ),
    ],
)
def test_wrong_configs_are_named(text, match):
    with pytest.raises(ConfigError, match=match):
        feature(text)


def test_bytes_that_are_no_text_are_ids_when_hashed_and_wrong_where_numbers_are_due():
    column = pa.array([b"1", b"\xff\xfe", b"\xff\x1d2"], pa.binary())
    encoded = encode(feature(HASH % ""), column)
    assert (encoded.bad, encoded.lengths.tolist()) == (None, [1, 1, 2])
    assert bad(BUCKETS % "", column)[0] == [False, True, True]
    # a file may also call them a string
    unchecked = column.cast(pa.string(), safe=False)
    assert bad(BUCKETS % "", unchecked)[0] == [False, True, True]


def test_a_setting_without_effect_is_told():
    assert "default_bucketize_value has no effect" in feature(HASH % "default_bucketize_value: 1").notes[0]
