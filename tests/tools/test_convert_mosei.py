import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.convert import mosei, mosi
from tools.convert.arrays import read_arrays


def split(rows: int = 2, **more):
    """Rectangles of 4 steps; row 0 has padding in front, row 1 behind and a silence in the middle."""
    text = np.ones((rows, 4, 3), np.float32)
    text[0, :2] = 0
    text[1, 1] = text[1, 3] = 0
    audio = np.full((rows, 4, 2), 2.0)
    audio[0, 3, 1] = -np.inf
    return {"text": text, "audio": audio, "vision": np.zeros((rows, 4, 5)), "labels": np.full((rows, 1, 1), 1.5)} | more


def write(path: Path, **more) -> Path:
    with open(path, "wb") as file:
        pickle.dump({name: split(**more) for name in ("train", "valid", "test")}, file, protocol=4)
    return path


def test_mult_layout_by_hand(tmp_path):
    ids = np.array([["v", "0.5", "2.5"], ["w", "1", "2"]])
    info = mosei.convert(write(tmp_path / "m.pkl", id=ids), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/test")
    assert rows["text"].to_pylist() == [[[1, 1, 1]] * 2, [[1, 1, 1], [0, 0, 0], [1, 1, 1]]]
    assert rows["audio"].to_pylist()[0][3] == [2, 0]
    assert rows["video"].to_pylist() == [[], []]
    assert rows["score"].to_pylist() == [1.5, 1.5]
    assert rows["id"].to_pylist() == ["v_0.5_2.5", "w_1_2"]
    assert rows.schema.field("text").type.value_type == pa.list_(pa.field("element", pa.float32()), 3)
    assert info["widths"] == {"text": 3, "audio": 2, "video": 5}
    assert info["not_finite"] == {"text": 0, "audio": 3, "video": 0}  # one in each split
    assert info["lengths"]["text"] == "zeros at the ends cut off"


def test_lengths_of_the_file_come_first(tmp_path):
    bert = np.zeros((2, 3, 4))
    bert[0, 1] = 1
    bert[1, 1, :2] = 1
    write(tmp_path / "m.pkl", audio_lengths=[1, 4], text_bert=bert, regression_labels=np.array([-1.0, 2.0]))
    info = mosei.convert(tmp_path / "m.pkl", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/train")
    assert [len(r) for r in rows["text"].to_pylist()] == [4, 2]
    assert [len(r) for r in rows["audio"].to_pylist()] == [1, 4]
    assert rows["score"].to_pylist() == [-1, 2]
    assert info["lengths"]["audio"] == "of the file"


def test_npz_has_the_same_names_with_slashes(tmp_path):
    flat = {f"{name}/{field}": x for name in ("train", "valid", "test") for field, x in split().items()}
    np.savez(tmp_path / "m.npz", **flat)
    mosei.convert(tmp_path / "m.npz", tmp_path / "out")
    write(tmp_path / "m.pkl")
    mosei.convert(tmp_path / "m.pkl", tmp_path / "same")
    assert pq.read_table(tmp_path / "out/test").equals(pq.read_table(tmp_path / "same/test"))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_of_every_protocol_are_read(tmp_path, protocol):
    data = {"a": np.arange(6.0).reshape(2, 3), "n": np.float64(2.5), "words": ["x", b"y"], "o": np.array(["v", None])}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(data, protocol=protocol))
    found = read_arrays(tmp_path / "m.pkl")
    assert np.array_equal(found["a"], data["a"])
    assert (found["n"], found["words"], list(found["o"])) == (2.5, ["x", b"y"], ["v", None])


class Runs:
    def __reduce__(self):
        return eval, ("open('ran', 'w').close()",)


@pytest.mark.parametrize("value", [Runs(), {"train": [Runs()]}, Path("x"), np.random.default_rng(0)])
def test_a_pickle_that_names_anything_else_is_refused_and_runs_nothing(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=r"cannot be read as arrays: it names \".*\", which is no array"):
        read_arrays(tmp_path / "m.pkl")
    assert not (tmp_path / "ran").exists()


def test_what_may_be_named_cannot_be_changed(tmp_path):
    # BUILD on the allowed codec with a state of attributes: it has no place for them.
    program = b"c_codecs\nencode\n}S'x'\nI1\nsb."
    (tmp_path / "m.pkl").write_bytes(program)
    with pytest.raises(DataError, match="cannot be read as arrays"):
        read_arrays(tmp_path / "m.pkl")
    # Another codec than latin1: some of them unpack.
    (tmp_path / "m.pkl").write_bytes(b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.")
    with pytest.raises(DataError, match='codec "zlib"'):
        read_arrays(tmp_path / "m.pkl")


def test_damaged_and_wrong_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"m.pkl.* does not exist"):
        read_arrays(tmp_path / "m.pkl")
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match="cannot be read as arrays"):
        read_arrays(tmp_path / "m.pkl")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="holds a list, expected a dict"):
        read_arrays(tmp_path / "m.pkl")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"train": {}}))
    with pytest.raises(DataError, match="has no modality"):
        mosei.convert(tmp_path / "m.pkl", tmp_path / "out")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"train": {"text": np.ones((2, 3))}}))
    with pytest.raises(DataError, match=r'column "text": is float64 \[2, 3\], expected numbers'):
        mosei.convert(tmp_path / "m.pkl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def utterances(folder: Path) -> Path:
    """Video a: train, 3 utterances out of order; b: train, 1; c: test, 2."""
    video = np.array(["a", "c", "a", "b", "c", "a"])
    clip = np.array([3, 1, 1, 1, 2, 2])
    x = np.arange(6, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    np.savez(
        folder / "mosi_utterance.npz", ids=np.array([f"{v}_{c}" for v, c in zip(video, clip, strict=True)]),
        video_id=video, clip=clip, text=x, audio=x, video=x, label=np.arange(6, dtype=np.float32),
        split_bclstm=np.array(["train", "test", "train", "train", "test", "train"]),
    )  # fmt: skip
    return folder


def test_an_utterance_comes_after_those_before_it_in_its_video(tmp_path):
    info = mosi.convert(utterances(tmp_path), tmp_path / "out", valid_share=0)
    train, test = pq.read_table(tmp_path / "out/train"), pq.read_table(tmp_path / "out/test")
    assert train["id"].to_pylist() == ["a_1", "a_2", "a_3", "b_1"]
    assert train["score"].to_pylist() == [2, 5, 0, 3]
    # Training vectors 0, 2, 3, 5: mean 2.5, spread sqrt(13 / 4)
    scaled = lambda *x: [[pytest.approx((v - 2.5) / (13 / 4) ** 0.5)] * 2 for v in x]  # noqa: E731
    assert train["text"].to_pylist() == [scaled(2), scaled(2, 5), scaled(2, 5, 0), scaled(3)]
    assert test["text"].to_pylist() == [scaled(1), scaled(1, 4)]
    assert (info["longest"], info["videos"]) == (3, {"test": 1, "train": 2})


def test_whole_videos_are_held_out(tmp_path):
    info = mosi.convert(utterances(tmp_path), tmp_path / "out", valid_share=0.5)
    parts = {name: {i[0] for i in pq.read_table(tmp_path / f"out/{name}")["id"].to_pylist()} for name in info["videos"]}
    assert parts["valid"] == set(info["held_out"])
    assert len(parts["train"] | parts["valid"]) == 2
    assert parts["test"] == {"c"}


MOSI = Path("/work/shared/data/mosi")


@pytest.mark.skipif(not MOSI.exists(), reason="MOSI is not on this machine")
def test_the_real_file(tmp_path):
    info = mosi.convert(MOSI, tmp_path / "out")
    assert sum(info["rows"].values()) == 2199
    assert info["rows"]["test"] == 752
    assert info["videos"] == {"test": 31, "train": 50, "valid": 12}
    assert info["longest"] == 63
