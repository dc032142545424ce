import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tools.convert import movielens_history
from tools.convert.__main__ import main
from tools.convert.movielens import read
from tools.convert.movielens_history import Rows
from tools.convert.output import time_splits

USERS = "7::F::1::10::48067\n9::M::56::16::70072\n"
MOVIES = "1::A (1995)::Drama|Comedy\n2::B (2001)::Comedy\n4::C (1980)::\n5::D (1981)::Action\n"
# user, movie, rating, second: user 7 rates three movies in second 20.
RATINGS = [
    (7, 1, 5, 10),
    (7, 2, 4, 20),
    (7, 4, 2, 20),
    (7, 5, 3, 20),
    (7, 1, 1, 30),
    (9, 5, 4, 5),
    (9, 4, 5, 40),
]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "ml-1m"
    path.mkdir()
    (path / "users.dat").write_text(USERS)
    (path / "movies.dat").write_text(MOVIES)
    (path / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in RATINGS))
    return path


def histories(rows):
    return [
        list(zip(row["hist__movie_id"], row["hist__genre"], row["hist__rating"], row["hist__seconds_ago"], strict=True))
        for row in rows.take(np.arange(len(rows.user))).to_pylist()
    ]


def test_history_of_clicks_by_hand(folder):
    # Genres in alphabetical order: Action 1, Comedy 2, Drama 3; 0 where a movie has none. Movies 1, 2, 4, 5 are 1-4.
    assert histories(Rows(read(folder), history="clicks", length=50)) == [
        [],
        [(1, 3, 5, 10)],
        [(1, 3, 5, 10)],  # the 4 of the same second is not known yet
        [(1, 3, 5, 20), (2, 2, 4, 10)],  # neither the 2 nor the 3 of second 20 is a click
        [],
        [(4, 1, 4, 35)],
    ]


def test_history_of_all_ratings_by_hand(folder):
    assert histories(Rows(read(folder), history="all", length=3))[3] == [
        (2, 2, 4, 10),
        (3, 0, 2, 10),
        (4, 1, 3, 10),
    ]


def test_rows_carry_the_target_and_its_first_genre(folder):
    row = Rows(read(folder), history="clicks", length=50).take(np.array([1])).to_pylist()[0]
    assert (row["label"], row["user_id"], row["movie_id"], row["genre"], row["genres"], row["timestamp"]) == (
        1, 1, 2, 2, ["Comedy"], 20
    )  # fmt: skip


def test_time_splits_keep_a_moment_together():
    time = np.array([9, 1, 2, 3, 4, 5, 8, 8, 8, 6])
    splits = time_splits(time)
    # 80 % end within the moment 8, which begins after six rows.
    assert {name: time[rows].tolist() for name, rows in splits.items()} == {
        "train": [1, 2, 3, 4, 5, 6], "valid": [8, 8, 8], "test": [9]
    }  # fmt: skip
    assert [len(rows) for rows in time_splits(np.ones(10)).values()] == [0, 0, 10]
    assert [len(rows) for rows in time_splits(np.arange(100)).values()] == [80, 10, 10]
    assert [len(rows) for rows in time_splits(np.zeros(0)).values()] == [0, 0, 0]


def many_ratings(folder, rows=800):
    draw = np.random.default_rng(0)
    users, movies = draw.integers(1, 41, rows), draw.integers(1, 101, rows)
    (folder / "users.dat").write_text("".join(f"{user}::F::1::10::0\n" for user in range(1, 41)))
    (folder / "movies.dat").write_text("".join(f"{movie}::T (1990)::Drama\n" for movie in range(1, 101)))
    stars, seconds = draw.integers(1, 6, rows), draw.integers(0, 2000, rows)
    lines = zip(users, movies, stars, seconds, strict=True)
    (folder / "ratings.dat").write_text("".join("::".join(map(str, line)) + "\n" for line in lines))
    return users, movies, stars, seconds


def test_the_files_equal_a_loop_over_ratings(folder, tmp_path):
    users, movies, stars, seconds = many_ratings(folder)
    assert main(["movielens_history", "--input", str(folder), "--output", str(tmp_path / "o"), "--length", "5"]) == 0
    tables = {split: pq.read_table(tmp_path / "o" / split) for split in ("train", "valid", "test")}
    newest = [table["timestamp"].to_numpy() for table in tables.values()]
    assert newest[0].max() < newest[1].min() <= newest[1].max() < newest[2].min()
    assert not np.all(np.diff(newest[0]) >= 0)  # training rows are shuffled
    assert np.all(np.diff(newest[2]) >= 0)
    rows = pa.concat_tables(tables.values()).to_pylist()
    assert len(rows) == (stars != 3).sum()
    order = np.argsort(seconds, kind="stable")
    for row in rows:
        taken = [i for i in order if users[i] == row["user_id"] and stars[i] > 3 and seconds[i] < row["timestamp"]][-5:]
        assert row["hist__movie_id"] == movies[taken].tolist()
        assert row["hist__seconds_ago"] == (row["timestamp"] - seconds[taken]).tolist()
        assert all(ago > 0 for ago in row["hist__seconds_ago"])


def test_the_summary_tells_what_training_has_not_seen(folder):
    rows = Rows(read(folder), history="clicks", length=50)
    # Rows 0-3 are user 7's, 4-5 user 9's; training on rows 0 and 1 has seen user 7 and movies 1, 2.
    told = rows.summary(np.array([2, 3, 4, 5]), np.array([0, 1]))
    assert told["rows_of_users_unseen_in_training"] == 0.5
    assert told["rows_of_movies_unseen_in_training"] == 0.75
    assert told["history"]["empty"] == 0.25
    assert told["positive_rate"] == 0.5


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    many_ratings(folder, 300)
    for name in "ab":
        movielens_history.convert(folder, tmp_path / name)
    first, second = (pq.read_table(tmp_path / name / "train") for name in "ab")
    assert first.equals(second)
