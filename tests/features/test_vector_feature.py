from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rec.config.errors import ConfigError
from rec.features import Feature
from tests.features.helpers import encode, feature

VECTORS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "ids.txt").write_text("a\nb\n7\n")
    return tmp_path


def vectors(folder: Path, more: str = "", *, kind: str = "sequence_vector_feature", mode: str = "FG_NORMAL") -> Feature:
    length = "sequence_length: 3" if kind.startswith("sequence") else ""
    return feature(
        f'{kind} {{ feature_name: "f" expression: "item:c" vectors_file: "{folder}/v.npy" {length} {more} }}', mode
    )


def ids_of(folder: Path, more: str = "") -> str:
    return f'ids_file: "{folder}/ids.txt" {more}'


def test_numbers_are_looked_up(folder: Path):
    one = vectors(folder)
    assert (one.width, one.value_dim, one.table) == (2, 2, None)
    encoded = encode(one, [[2, 0], None, [], [1]])
    assert encoded.values.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert encoded.lengths.tolist() == [2, 0, 0, 1]
    assert (encoded.values.dtype, encoded.lengths.dtype, encoded.bad) == (np.float32, np.int32, None)


def test_ids_are_looked_up_by_their_text(folder: Path):
    one = vectors(folder, ids_of(folder))
    assert encode(one, [["b", "7"], ["a"]]).values.tolist() == [[3, 4], [5, 6], [1, 2]]
    assert encode(one, ["b;7", ""]).lengths.tolist() == [2, 0]
    assert encode(one, [[7]]).values.tolist() == [[5, 6]]
    words = pa.array([["a", "b"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))
    assert encode(one, words).values.tolist() == [[1, 2], [3, 4]]


def test_a_row_has_the_vector_of_its_id(folder: Path):
    encoded = encode(vectors(folder, ids_of(folder), kind="vector_feature"), ["b", None, "7"])
    assert encoded.values.tolist() == [[3, 4], [0, 0], [5, 6]]
    assert (encoded.lengths, encoded.bad) == (None, None)


def test_a_step_without_an_id_stays_a_step_of_zeros(folder: Path):
    encoded = encode(vectors(folder), [[1, None, 2]])
    assert (encoded.values.tolist(), encoded.lengths.tolist(), encoded.bad) == ([[3, 4], [0, 0], [5, 6]], [3], None)


def test_an_unknown_id_is_a_wrong_row_or_zeros(folder: Path):
    for text, column in (("", [[1], [0, 3]]), (ids_of(folder), [["a"], ["b", "c"]])):
        encoded = encode(vectors(folder, text), column)
        assert encoded.bad.tolist() == [False, True]
        assert encoded.reason == "has no vector"
        encoded = encode(vectors(folder, text + " unknown: ZEROS"), column)
        assert encoded.bad is None
        assert encoded.values[2].tolist() == [0, 0]


def test_what_is_no_integer_is_a_wrong_row_even_with_zeros(folder: Path):
    encoded = encode(vectors(folder, "unknown: ZEROS"), [["1"], ["x"]])
    assert encoded.bad.tolist() == [False, True]
    assert "no integer" in encoded.reason


def test_long_sequences_keep_the_end_that_is_asked_for(folder: Path):
    assert encode(vectors(folder), [[0, 0, 0, 2]]).values[-1].tolist() == [1, 2]
    encoded = encode(vectors(folder, "sequence_keep: LAST"), [[0, 0, 0, 2]])
    assert encoded.values[-1].tolist() == [5, 6]
    assert encoded.lengths.tolist() == [3]


def test_encoded_data_holds_numbers(folder: Path):
    one = vectors(folder, ids_of(folder), mode="FG_NONE")
    assert one.inputs == ("f",)
    assert encode(one, [[2]]).values.tolist() == [[5, 6]]
    assert "ids_file has no effect" in one.notes[0]


def test_half_precision_is_read_as_float32(folder: Path):
    np.save(folder / "v.npy", VECTORS.astype(np.float16))
    values = encode(vectors(folder), [[1]]).values
    assert (values.dtype, values.tolist()) == (np.float32, [[3, 4]])


def test_a_vector_that_is_not_finite_is_a_wrong_row(folder: Path):
    np.save(folder / "v.npy", np.array([[1, np.nan], [1, 2]], np.float32))
    encoded = encode(vectors(folder), [[1], [1, 0]])
    assert (encoded.bad.tolist(), encoded.reason) == ([False, True], "has a vector that is not finite")


def test_it_travels_to_readers_without_its_vectors(folder: Path):
    np.save(folder / "v.npy", np.ones((100_000, 8), np.float32))
    one = vectors(folder)
    data = pickle.dumps(one._vectors)
    assert len(data) < 1000
    assert pickle.loads(data).take(np.array([5])).tolist() == [[1.0] * 8]


def test_both_files_are_assets(folder: Path):
    assert vectors(folder, ids_of(folder)).assets() == {
        "vectors_file": f"{folder}/v.npy",
        "ids_file": f"{folder}/ids.txt",
    }


def test_a_request_has_numbers_or_words(folder: Path):
    assert vectors(folder).arrow_type("c") == pa.list_(pa.int64())
    assert vectors(folder, ids_of(folder), kind="vector_feature").arrow_type("c") == pa.string()


@pytest.mark.parametrize("kind", [pa.list_(pa.list_(pa.int64())), pa.date32()])
def test_other_types_are_refused(folder: Path, kind: pa.DataType):
    assert "or a list of them" in vectors(folder).accepts("c", kind)
    assert "list" not in vectors(folder, kind="vector_feature").accepts("c", pa.list_(pa.int64()))


def test_wrong_files_are_named(folder: Path):
    np.save(folder / "v.npy", np.arange(3))
    with pytest.raises(ConfigError, match=r"holds int64 \[3\], expected floats"):
        vectors(folder)
    (folder / "v.npy").write_text("no array")
    with pytest.raises(ConfigError, match=r'feature "f": vectors_file'):
        vectors(folder)
    (folder / "v.npy").unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        vectors(folder)


def test_pickled_objects_are_never_read(folder: Path):
    np.save(folder / "v.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ConfigError, match="Python objects"):
        vectors(folder)


def test_more_ids_than_vectors_are_refused(folder: Path):
    (folder / "ids.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(ConfigError, match=r'ids_file ".*ids.txt" has 4 ids, up to number 3, for 3 vectors'):
        vectors(folder, ids_of(folder))
    (folder / "ids.txt").write_text("a\na\n")
    with pytest.raises(ConfigError, match=r'ids_file ".*" repeats "a"'):
        vectors(folder, ids_of(folder))
