from __future__ import annotations

import pytest

from rec.config.errors import DataError
from rec.data.files import compression_of, find_files, is_remote


@pytest.fixture
def folder(tmp_path):
    for name in ("b.parquet", "a.parquet", "sub/c.parquet", "notes.txt", "_SUCCESS", ".d.parquet", "_tmp/e.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def found(folder, path) -> list[str]:
    return [name.removeprefix(f"{folder}/") for name in find_files(path, (".parquet",))]


def test_a_folder_gives_its_files_sorted_without_hidden_ones(folder):
    assert found(folder, str(folder)) == ["a.parquet", "b.parquet", "sub/c.parquet"]


def test_a_glob_gives_its_matches_sorted(folder):
    assert found(folder, f"{folder}/?.parquet") == ["a.parquet", "b.parquet"]
    assert found(folder, f"{folder}/**/*.parquet") == ["a.parquet", "b.parquet", "sub/c.parquet"]


def test_a_list_keeps_its_order(folder):
    path = f"{folder}/b.parquet, {folder}/a.parquet,{folder}/sub"
    assert found(folder, path) == ["b.parquet", "a.parquet", "sub/c.parquet"]


def test_a_file_is_taken_whatever_its_name(folder):
    assert found(folder, f"{folder}/notes.txt") == ["notes.txt"]
    assert found(folder, f"file://{folder}/notes.txt") == ["notes.txt"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{}/nothing.parquet", "no such file or folder$"),
        ("{}/no/such/place.parquet", "no such file or folder; the path exists up to .*"),
        ("{}/*.csv", "no file matches this pattern"),
        ("{}/sub2", "no file ending in .parquet in this folder; it holds 1 other files, e.g. x.csv"),
        ("{}/sub3", "no file ending in .parquet in this folder; it is empty"),
        (" , ", "the input path is empty"),
        ("nope://bucket/a.parquet", "unknown kind of URL"),
    ],
)
def test_what_is_not_there_is_said(folder, path, words):
    (folder / "sub2").mkdir()
    (folder / "sub2/x.csv").write_bytes(b"")
    (folder / "sub3").mkdir()
    with pytest.raises(DataError, match=words):
        find_files(path.format(folder), (".parquet",))


def test_urls_of_fsspec(folder):
    import fsspec

    fs = fsspec.filesystem("memory")
    for name in ("/data/b.parquet", "/data/a.parquet", "/data/_SUCCESS"):
        fs.pipe(name, b"x")
    expected = ["memory://data/a.parquet", "memory://data/b.parquet"]
    try:
        assert find_files("memory://data", (".parquet",)) == expected
        assert find_files("memory://data/*.parquet", (".parquet",)) == expected
        assert find_files("memory://data/a.parquet", (".parquet",)) == expected[:1]
        with pytest.raises(DataError, match="no such file"):
            find_files("memory://data/c.parquet", (".parquet",))
    finally:
        fs.rm("/data", recursive=True)


def test_what_is_remote_and_what_is_compressed():
    assert [is_remote(p) for p in ("s3://a/b", "C:/a", "/a/b", "file:///a")] == [True, False, False, False]
    assert [compression_of(p) for p in ("a.csv", "a.csv.GZ", "a.zst")] == [None, "gzip", "zstd"]
