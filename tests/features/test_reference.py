"""Random columns in every layout against a reference that walks over Python values."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from tests.features.helpers import feature

ROWS = 50


def random_rows(rng, *, depth, text):
    def leaf():
        r = rng.random()
        if r < 0.15:
            return None
        if text and r < 0.3:
            return ""
        value = rng.choice([0, 1, 5, 9, 9, 10, -1]) if r < 0.5 else rng.randrange(10)
        return str(value) if text else value

    def build(level):
        if level == 0:
            return leaf()
        if rng.random() < 0.2:
            return None if level == depth else []
        return [build(level - 1) for _ in range(rng.randrange(5))]

    return [build(depth) for _ in range(ROWS)]


def expected_ids(row, default, most):
    """Ids of a row and whether it is wrong."""
    leaves = [] if row is None else row if isinstance(row, list) else [row]
    found = [int(v) for v in leaves if v not in (None, "")]
    wrong = any(not 0 <= v < 10 for v in found) or (most and len(found) > most)
    return found or list(default), bool(wrong)


def expected_steps(row, default, length, last, most):
    steps = [] if row in (None, "") else row if isinstance(row, list) else [row]
    steps = steps[-length:] if last else steps[:length]
    out = [expected_ids(step, default, most) for step in steps]
    return [ids for ids, _ in out], any(wrong for _, wrong in out)


def layouts(rows, depth, text):
    leaf = pa.string() if text else pa.int64()
    kinds = [leaf]
    for _ in range(depth):
        kinds = [f(k) for k in kinds for f in (pa.list_, pa.large_list)]
    if text:
        kinds += [pa.dictionary(pa.int32(), leaf)] if depth == 0 else []
        kinds += [pa.large_string(), pa.string_view()] if depth == 0 else []
    elif depth == 0:
        kinds += [pa.float64(), pa.int32()]
    for kind in kinds:
        yield pa.array(rows, kind)
        # a slice of a longer column must not look at its neighbours
        yield pa.array([*rows[:7], *rows, *rows[:3]], kind)[7 : 7 + len(rows)]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(("default", "value_dim"), [("", 0), ("4", 0), ("4", 2)])
@pytest.mark.parametrize("seed", range(3))
def test_ids(text, depth, default, value_dim, seed):
    rows = random_rows(random.Random(seed), depth=depth, text=text)
    one = feature(
        f"""id_feature {{ feature_name: "f" embedding_dim: 4 num_buckets: 10 default_value: "{default}"
        value_dim: {value_dim} }}"""
    )
    default_ids = [int(default)] if default else []
    expected = [expected_ids(row, default_ids, value_dim) for row in rows]
    for column in layouts(rows, depth, text):
        encoded = one.encode(pa.RecordBatch.from_arrays([column], ["f"]))
        bad = np.zeros(ROWS, bool) if encoded.bad is None else encoded.bad
        assert bad.tolist() == [wrong for _, wrong in expected]
        assert encoded.lengths.tolist() == [len(ids) for ids, _ in expected]
        ends = np.cumsum(encoded.lengths)
        for (ids, wrong), stop in zip(expected, ends, strict=True):
            if not wrong:
                assert encoded.values[stop - len(ids) : stop].tolist() == ids


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("keep", ["FIRST", "LAST"])
@pytest.mark.parametrize("value_dim", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_sequences(text, depth, keep, value_dim, seed):
    rows = random_rows(random.Random(seed), depth=depth, text=text)
    one = feature(
        f"""sequence_id_feature {{ feature_name: "f" embedding_dim: 4 num_buckets: 10 default_value: "4"
        sequence_length: 2 sequence_keep: {keep} value_dim: {value_dim} }}"""
    )
    expected = [expected_steps(row, [4], 2, keep == "LAST", value_dim) for row in rows]
    for column in layouts(rows, depth, text):
        encoded = one.encode(pa.RecordBatch.from_arrays([column], ["f"]))
        bad = np.zeros(ROWS, bool) if encoded.bad is None else encoded.bad
        assert bad.tolist() == [wrong for _, wrong in expected]
        assert encoded.lengths.tolist() == [len(steps) for steps, _ in expected]
        if bad.any():
            kept = column.filter(pa.array(~bad))
            encoded = one.encode(pa.RecordBatch.from_arrays([kept], ["f"]))
            assert encoded.bad is None
        good = [steps for steps, wrong in expected if not wrong]
        assert encoded.values.tolist() == [v for steps in good for ids in steps for v in ids]
        if value_dim == 0:
            assert encoded.inner_lengths.tolist() == [len(ids) for steps in good for ids in steps]


@pytest.mark.parametrize("seed", range(5))
def test_delimited_strings_equal_lists(seed):
    rng = random.Random(seed)
    lists = [
        [[str(rng.randrange(10)) for _ in range(rng.randrange(1, 4))] for _ in range(rng.randrange(6))]
        for _ in range(ROWS)
    ]
    strings = [";".join("|".join(step) for step in row) for row in lists]
    one = feature(
        """sequence_id_feature { feature_name: "f" embedding_dim: 4 num_buckets: 10 sequence_length: 4
        value_dim: 0 separator: "|" }"""
    )
    a = one.encode(pa.RecordBatch.from_pydict({"f": lists}))
    b = one.encode(pa.RecordBatch.from_pydict({"f": strings}))
    for name in ("values", "lengths", "inner_lengths"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("seed", range(5))
def test_dense_values(seed):
    rng = random.Random(seed)
    pick = [0.5, -2.0, None, float("nan"), 3.25]
    rows = [
        None if rng.random() < 0.2 else [rng.choice(pick) for _ in range(rng.choice([0, 3, 3, 3, 2]))]
        for _ in range(ROWS)
    ]
    one = feature('raw_feature { feature_name: "f" value_dim: 3 separator: "|" default_value: "7|8|9" }')
    wrong = [row is not None and len(row) not in (0, 3) for row in rows]
    expected = [
        [d if v is None or v != v else v for v, d in zip(row or [None] * 3, (7, 8, 9), strict=False)]
        for row, bad in zip(rows, wrong, strict=True)
        if not bad
    ]
    strings = [None if row is None else "|".join("" if v is None else repr(v) for v in row) for row in rows]
    for column in (pa.array(rows), pa.array(rows, pa.large_list(pa.float32())), pa.array(strings)):
        encoded = one.encode(pa.RecordBatch.from_arrays([column], ["f"]))
        bad = np.zeros(ROWS, bool) if encoded.bad is None else encoded.bad
        assert bad.tolist() == wrong
        assert encoded.values[~bad].tolist() == expected
