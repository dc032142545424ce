from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rec.config.errors import ConfigError
from tests.features.helpers import encode, feature

ONE = 'raw_feature { feature_name: "f" expression: "item:c" %s }'
TWO = 'raw_feature { feature_name: "f" expression: "item:c" value_dim: 2 separator: "|" %s }'
CUT = 'raw_feature { feature_name: "f" expression: "item:c" embedding_dim: 4 boundaries: [0.1, 0.5, 2] %s }'


def values(text, column, kind=None, mode="FG_NORMAL"):
    encoded = encode(feature(text, mode), column, kind)
    assert encoded.bad is None, encoded.reason
    assert encoded.lengths is None
    assert encoded.values.dtype == np.float32
    return encoded.values.tolist()


def bad(text, column, kind=None, mode="FG_NORMAL"):
    encoded = encode(feature(text, mode), column, kind)
    return encoded.bad.tolist(), encoded.reason


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0.5, 3], pa.float32()),
        pa.array([0.5, 3], pa.float64()),
        pa.array([0.5, 3], pa.float64()).cast(pa.float16()),
        pa.array(["0.5", " 3 "]),
        pa.array(["5e-1", "+3"]),
        pa.array(["0.5", "3"]).dictionary_encode(),
        pa.array([[0.5], [3]]),
        pa.array([[0.5], [3]], pa.list_(pa.float32(), 1)),
        pa.array(["0.5", "3"]).cast(pa.decimal128(5, 2)),
    ],
    ids=lambda c: str(c.type),
)
def test_the_same_number_in_every_arrow_type(column):
    assert values(ONE % "", column) == [[0.5], [3.0]]


def test_integers_and_bools_are_numbers():
    assert values(ONE % "", [1, -2, None]) == [[1.0], [-2.0], [0.0]]
    assert values(ONE % "", [True, False, None]) == [[1.0], [0.0], [0.0]]


def test_missing_numbers_become_the_default():
    column = [1.0, None, float("nan")]
    assert values(ONE % "", column) == [[1.0], [0.0], [0.0]]
    assert values(ONE % 'default_value: "-7"', column, pa.float32()) == [[1.0], [-7.0], [-7.0]]
    assert values(ONE % 'default_value: "-7"', ["1", "", None, "nan"]) == [[1.0], [-7.0], [-7.0], [-7.0]]
    assert values(ONE % 'default_value: "-7"', [[1.0], [], None, [None]]) == [[1.0], [-7.0], [-7.0], [-7.0]]
    assert values(ONE % "", [None, None], pa.null()) == [[0.0], [0.0]]


def test_without_a_default_a_missing_number_is_a_wrong_row():
    for column in ([1.0, None, 2.0], ["1", "", "2"], [[1.0], [], [2.0]]):
        assert bad(ONE % 'default_value: ""', column)[0] == [False, True, False]


@pytest.mark.parametrize("column", [[1.0, float("inf")], [1.0, 1e39], ["1", "-inf"], ["1", "one"], ["1", "0x10"]])
def test_infinite_and_unreadable_numbers_are_wrong_rows(column):
    marked, reason = bad(ONE % "", column)
    assert marked == [False, True]
    assert "finite number" in reason


def test_several_values():
    expected = [[1.0, 2.0], [3.0, 4.0]]
    assert values(TWO % "", ["1|2", "3|4"]) == expected
    assert values(TWO % "", [[1, 2], [3, 4]]) == expected
    assert values(TWO % "", [[1, 2], [3, 4]], pa.list_(pa.float32(), 2)) == expected
    assert values(TWO % "", [[1, 2], None, []], pa.list_(pa.float32())) == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]
    assert values(TWO % 'default_value: "8|9"', ["1|2", "", "3|"]) == [[1.0, 2.0], [8.0, 9.0], [3.0, 9.0]]
    assert values(TWO % 'default_value: "8|9"', [[1.0, None], None]) == [[1.0, 9.0], [8.0, 9.0]]
    assert values(TWO % "", ["", None]) == [[0.0, 0.0], [0.0, 0.0]]


def test_another_number_of_values_is_a_wrong_row():
    for column in ([[1.0, 2.0], [1.0], [1.0, 2.0, 3.0]], ["1|2", "1", "1|2|3"]):
        marked, reason = bad(TWO % "", column)
        assert marked == [False, True, True]
        assert "value_dim = 2" in reason
    assert bad(TWO % "", ["1|2", "1|x"])[0] == [False, True]
    assert bad(ONE % "", [[1.0], [1.0, 2.0]])[0] == [False, True]


def test_the_normalizer_also_applies_to_the_default():
    text = ONE % 'normalizer: "method=zscore,mean=1,standard_deviation=2" default_value: "5"'
    assert values(text, [3.0, None]) == [[1.0], [2.0]]
    text = ONE % 'normalizer: "method=log10"'
    assert values(text, [1000.0, None], pa.float32()) == [[3.0], [-10.0]]
    # log of a negative number is no number
    assert bad(ONE % 'normalizer: "method=expression,expr=log(x)" default_value: "1"', [1.0, -1.0])[0] == [False, True]


def test_encoded_data_is_normalised_already():
    text = 'raw_feature { feature_name: "f" normalizer: "method=log10" %s }'
    assert values(text % "", [1000.0, None], mode="FG_NONE") == [[1000.0], [-10.0]]
    assert values(text % 'fg_encoded_default_value: "4"', [None, 1.0], mode="FG_NONE") == [[4.0], [1.0]]
    assert "normalizer has no effect" in feature(text % "", "FG_NONE").notes[0]
    assert values('raw_feature { feature_name: "f" value_dim: 2 }', ["1\x032"], mode="FG_NONE") == [[1.0, 2.0]]


def test_float32_is_not_copied():
    column = pa.array([1.0, 2.0], pa.float32())
    assert encode(feature(ONE % ""), column).values.__array_interface__["data"][0] == column.buffers()[1].address


def test_boundaries_belong_to_the_bucket_above():
    # buckets: x < 0.1, 0.1 <= x < 0.5, 0.5 <= x < 2, 2 <= x
    column = [0.0, 0.1, 0.3, 0.5, 1.9, 2.0, 99.0]
    for kind in (pa.float32(), pa.float64()):
        encoded = encode(feature(CUT % ""), column, kind)
        assert encoded.values.tolist() == [0, 1, 1, 2, 2, 3, 3]
        assert encoded.lengths.tolist() == [1] * 7
    assert encode(feature(CUT % ""), ["0.1", "0.09"]).values.tolist() == [1, 0]
    assert feature(CUT % "").table.rows == 4
    assert feature(CUT % "").width == 4


def test_missing_numbers_of_boundaries():
    column = [3.0, None, float("nan")]
    assert encode(feature(CUT % ""), column).values.tolist() == [3, 0, 0]
    encoded = encode(feature(CUT % 'default_value: ""'), column)
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([3], [1, 0, 0])
    assert bad(CUT % "", [1.0, float("inf")])[0] == [False, True]
    assert bad(CUT % "", ["1.0", "one", ""])[0] == [False, True, False]


def test_boundaries_after_the_normalizer():
    text = CUT % 'normalizer: "method=zscore,mean=10,standard_deviation=10"'
    assert encode(feature(text), [10.0, 12.0, 15.0, 30.0]).values.tolist() == [0, 1, 2, 3]


def test_several_values_with_boundaries():
    text = CUT % "value_dim: 0"
    encoded = encode(feature(text), [[0.0, 3.0], [0.2], []])
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([0, 3, 1, 0], [2, 1, 1])


def test_encoded_boundaries_are_bucket_ids():
    encoded = encode(feature(CUT % "", "FG_NONE"), [3, 0, None])
    assert (encoded.values.tolist(), encoded.lengths.tolist()) == ([3, 0, 0], [1, 1, 1])
    assert bad(CUT % "", [3, 4], mode="FG_NONE")[0] == [False, True]


def test_dense_embeddings():
    one = feature(ONE % "embedding_dim: 8 autodis { num_channels: 3 }")
    assert (one.width, one.value_dim, one.dense_emb.num_channels, one.table) == (8, 1, 3, None)
    assert feature(TWO % "embedding_dim: 8 mlp {}").width == 8
    assert feature(ONE % "").dense_emb is None
    assert feature(TWO % "").width == 2


def test_settings_without_effect_are_told():
    (note,) = feature(ONE % "embedding_dim: 8").notes
    assert "embedding_dim has no effect" in note
    notes = feature(ONE % 'embedding_dim: 8 mlp {} init_fn: "nn.init.zeros_" trainable: false').notes
    assert [n.split(" ")[0] for n in notes] == ["trainable", "init_fn"]
    assert not feature(CUT % "trainable: false").notes


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches(n):
    for text in (ONE, TWO, CUT):
        one = feature(text % "")
        lists = "value_dim" in text
        column = pa.array([[1.0, 2.0]] * n, pa.list_(pa.float32())) if lists else pa.array([1.0] * n, pa.float32())
        assert len(encode(one, column).values) == n


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (ONE % 'normalizer: "method=zscor"', 'normalizer of feature "f": unknown method'),
        (ONE % 'default_value: "x"', '"x" of feature .* is no number'),
        (ONE % 'default_value: "0" normalizer: "method=expression,expr=log(x)"', "not finite after its normalizer"),
        (TWO % 'default_value: "1|2|3"', "nor 2"),
        (ONE % "value_dim: 0", "value_dim: 0"),
        (ONE % "boundaries: [1, 1] embedding_dim: 4", "do not rise"),
        (ONE % "boundaries: [1, 2]", "no embedding_dim"),
        (ONE % "boundaries: [1, 2] embedding_dim: 4 mlp {}", "boundaries and mlp"),
        (ONE % "mlp {}", "no embedding_dim"),
        (TWO % "embedding_dim: 4 autodis { num_channels: 2 }", "use mlp for several"),
        ('sequence_raw_feature { feature_name: "f" sequence_length: 3 embedding_dim: 4 mlp {} }', "sequence feature"),
    ],
)
def test_wrong_configs_are_named(text, match):
    with pytest.raises(ConfigError, match=match):
        feature(text)


def test_the_default_of_encoded_boundaries_is_a_raw_value():
    text = CUT % 'normalizer: "method=zscore,mean=10,standard_deviation=10" default_value: "15"'
    for mode in ("FG_NORMAL", "FG_NONE", "FG_BUCKETIZE"):
        assert encode(feature(text, mode), [None], pa.float32()).values.tolist() == [2]
