"""Next item and Gowalla: files of users and their items."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.convert import gowalla, next_item
from tools.convert.__main__ import main
from tools.convert.user_items import read_user_items

SHARED = Path("/work/shared/data")
LINES = "7 3 4 5 6 8\n2 4 9\n5 3\n6 5 4 3\n"


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "users.txt"
    path.write_text(LINES)
    return path


def read(folder, split, *names):
    table = pq.read_table(folder / split)
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


def test_lines_of_users_and_lines_of_pairs_give_the_same(users, tmp_path):
    (tmp_path / "pairs.txt.gz").write_bytes(gzip.compress(b"7 3\n2 4\n7 4\n7 5\n2 9\n5 3\n7 6\n6 5\n6 4\n6 3\n7 8\n\n"))
    for path in (users, tmp_path / "pairs.txt.gz"):
        data = read_user_items(path)
        assert data.user.tolist() == [7, 2, 5, 6]
        assert [part.tolist() for part in np.split(data.items, data.offsets[1:-1])] == [
            [3, 4, 5, 6, 8], [4, 9], [3], [5, 4, 3]
        ]  # fmt: skip


def test_the_last_item_is_the_test_and_the_one_before_valid(users, tmp_path):
    info = next_item.convert(users, tmp_path / "o", length=3)
    columns = ("user_id", "item_id", "hist__item_id")
    # Items 3, 4, 5, 6, 8, 9 are numbered from 1.
    assert read(tmp_path / "o", "test", *columns) == [(6, 1, [3, 2]), (7, 5, [2, 3, 4])]
    assert read(tmp_path / "o", "valid", *columns) == [(6, 2, [3]), (7, 4, [1, 2, 3])]
    # User 2 only trains; users 5 and 6 have nothing before their only training item.
    assert read(tmp_path / "o", "train", *columns) == [(2, 6, [2]), (7, 3, [1, 2])]
    # Counts of training: of user 7 items 3, 4, 5; of 2 items 4, 9; of 5 item 3; of 6 item 5.
    assert read(tmp_path / "o", "items", "item_id", "raw_id", "weight") == [
        (1, 3, 2), (2, 4, 2), (3, 5, 2), (4, 6, 0), (5, 8, 0), (6, 9, 1)
    ]  # fmt: skip
    assert info["num_buckets"] == {"user_id": 8, "item_id": 7}


def test_held_out_rows_have_all_earlier_items_beside_a_short_history(users, tmp_path):
    next_item.convert(users, tmp_path / "o", length=1, rows="prefixes")
    columns = ("user_id", "item_id", "hist__item_id", "seen_ids")
    assert read(tmp_path / "o", "test", *columns) == [(6, 1, [2], [3, 2]), (7, 5, [4], [1, 2, 3, 4])]
    assert read(tmp_path / "o", "valid", *columns) == [(6, 2, [3], [3]), (7, 4, [3], [1, 2, 3])]
    assert "seen_ids" not in pq.read_table(tmp_path / "o" / "train").column_names


def test_rows_of_movielens_say_who_the_user_is_and_the_first_genre(tmp_path):
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    # Film 9 is the third of its file; the film that nobody rated has no number in the rows.
    (tmp_path / "movies.dat").write_text("1::A (1995)::Drama|War\n3::B (1996)::Comedy\n9::C (1997)::Action\n")
    (tmp_path / "ratings.dat").write_text("2::9::5::20\n2::1::5::10\n1::1::3::5\n2::1::4::30\n")
    next_item.convert(tmp_path, tmp_path / "o")
    columns = ("user_id", "item_id", "hist__item_id", "seen_ids", "gender", "age", "occupation", "genre")
    assert read(tmp_path / "o", "test", *columns) == [(2, 1, [1, 2], [1, 2], "M", 56, 16, "Drama")]
    assert read(tmp_path / "o", "valid", *columns) == [(2, 2, [1], [1], "M", 56, 16, "Action")]
    assert read(tmp_path / "o", "items", "item_id", "raw_id", "genre") == [(1, 1, "Drama"), (2, 3, "Action")]


def test_prefixes_are_rows_of_training(users, tmp_path):
    next_item.convert(users, tmp_path / "o", rows="prefixes")
    rows = read(tmp_path / "o", "train", "user_id", "item_id", "hist__item_id")
    assert rows == [(2, 6, [2]), (7, 2, [1]), (7, 3, [1, 2])]


def test_of_a_users_prefixes_the_latest_can_be_kept(users, tmp_path):
    next_item.convert(users, tmp_path / "o", rows="prefixes", latest=1)
    assert read(tmp_path / "o", "train", "user_id", "item_id", "hist__item_id") == [(2, 6, [2]), (7, 3, [1, 2])]
    # What an item weighs does not depend on the rows that are written.
    assert read(tmp_path / "o", "items", "item_id", "weight")[1] == (2, 2)


@pytest.mark.parametrize(
    ("rows", "latest", "message"), [("users", 1, "give --rows prefixes"), ("prefixes", -1, "is -1")]
)
def test_a_number_of_prefixes_that_cannot_be_is_refused(users, tmp_path, rows, latest, message):
    with pytest.raises(DataError, match=message):
        next_item.convert(users, tmp_path / "o", rows=rows, latest=latest)


def test_rare_items_are_left_out_before_the_split(users, tmp_path):
    next_item.convert(users, tmp_path / "o", min_count=2)
    # 6, 8 and 9 come once: user 7 has 3, 4, 5 left.
    assert read(tmp_path / "o", "test", "user_id", "item_id", "hist__item_id") == [(6, 1, [3, 2]), (7, 3, [1, 2])]
    with pytest.raises(DataError, match="no item comes 9 times"):
        next_item.convert(users, tmp_path / "o", min_count=9)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2\n3 4 x5\n", r"u.txt, row 1: 'x5' is no number"), ("", "u.txt: is empty"), ("1\n2\n", "users without items")],
)
def test_wrong_files_are_named(tmp_path, capsys, text, message):
    (tmp_path / "u.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_user_items(tmp_path / "u.txt")
    assert main(["next_item", "--input", str(tmp_path / "none.txt"), "--output", str(tmp_path / "o")]) == 3
    assert "none.txt: no such file" in capsys.readouterr().err


@pytest.fixture
def graph(tmp_path):
    folder = tmp_path / "gowalla"
    folder.mkdir()
    (folder / "train.txt").write_text("0 0 1 2 3 4\n1 2\n3 0 4\n")
    (folder / "test.txt.gz").write_bytes(gzip.compress(b"0 5 6\n1 0\n2\n3 1\n"))
    return folder


def test_gowalla_rows(graph, tmp_path):
    info = gowalla.convert(graph, tmp_path / "o", length=3, histories="others")
    columns = ("user_id", "item_id", "hist__item_id")
    train = read(tmp_path / "o", "train", *columns)
    assert [row[:2] for row in train] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (4, 1), (4, 5)]
    for user, item, history in train:
        others = {1: {1, 2, 3, 4, 5}, 2: {3}, 4: {1, 5}}[user] - {item}
        assert set(history) <= others
        assert len(history) == len(set(history)) == min(3, len(others))
    test = read(tmp_path / "o", "test", "user_id", "item_ids", "seen_ids", "hist__item_id")
    assert [(user, items, sorted(seen)) for user, items, seen, _ in test] == [
        (1, [6, 7], [1, 2, 3, 4, 5]), (2, [1], [3]), (4, [2], [1, 5])
    ]  # fmt: skip
    assert [len(row[3]) for row in test] == [3, 1, 2]
    assert all(set(history) <= set(seen) for _, _, seen, history in test)
    assert read(tmp_path / "o", "items", "item_id", "weight") == [
        (1, 2),
        (2, 1),
        (3, 2),
        (4, 1),
        (5, 2),
        (6, 0),
        (7, 0),
    ]
    assert info["num_buckets"] == {"user_id": 5, "item_id": 8}
    again = gowalla.convert(graph, tmp_path / "again", length=3, histories="others")
    assert again == info
    assert pq.read_table(tmp_path / "o/train").equals(pq.read_table(tmp_path / "again/train"))


def test_gowalla_with_the_same_history_for_all_rows_of_a_user(graph, tmp_path):
    info = gowalla.convert(graph, tmp_path / "o", length=3, histories="same")
    assert info["histories"] == "same"
    test = {user: history for user, history in read(tmp_path / "o", "test", "user_id", "hist__item_id")}
    assert {user: len(history) for user, history in test.items()} == {1: 3, 2: 1, 4: 2}
    train = read(tmp_path / "o", "train", "user_id", "hist__item_id")
    assert len(train) == 8
    assert all(history == test[user] for user, history in train)


def test_half_of_a_users_items_are_the_history_wherever_the_rows_own_is(tmp_path):
    (tmp_path / "train.txt").write_text("\n".join(f"{user} 0 1 2 3 4 5 6" for user in range(300)))
    (tmp_path / "test.txt").write_text("0 7\n")
    gowalla.convert(tmp_path, tmp_path / "o")
    rows = read(tmp_path / "o", "train", "item_id", "hist__item_id")
    assert all(len(history) == len(set(history)) == 4 for _, history in rows)
    own = np.array([item in history for item, history in rows])
    # 2,100 rows: 4 in 7 with a standard error of .011.
    assert abs(own.mean() - 4 / 7) < 0.05


def test_gowalla_holds_out_a_share_of_training(graph, tmp_path):
    info = gowalla.convert(graph, tmp_path / "o", valid_share=0.4)
    assert info["rows"] == {"items": 7, "test": 3, "train": 6, "valid": 1}
    ((user, items, seen),) = read(tmp_path / "o", "valid", "user_id", "item_ids", "seen_ids")
    assert (user, len(items)) == (1, 2)
    assert set(items) | set(seen) == {1, 2, 3, 4, 5}
    assert {item for who, item in read(tmp_path / "o", "train", "user_id", "item_id") if who == 1} == set(seen)


def test_a_user_without_training_has_an_empty_history(graph, tmp_path):
    (graph / "train.txt").write_text("0 0 1 2 3 4\n1 2\n")
    gowalla.convert(graph, tmp_path / "o")
    assert read(tmp_path / "o", "test", "user_id", "seen_ids", "hist__item_id")[2] == (4, [], [])


def test_gowalla_needs_both_files(graph, tmp_path):
    (graph / "test.txt.gz").unlink()
    with pytest.raises(DataError, match=r"has no test.txt or test.txt.gz; give the folder of LightGCN's Gowalla"):
        gowalla.convert(graph, tmp_path / "o")


@pytest.mark.skipif(not (SHARED / "ml-1m").exists(), reason="MovieLens-1M is not on this machine")
def test_movielens_has_the_order_of_sasrecs_file():
    # They number users and items by other orders, which leaves counts alone: the counts of a user's items, in order,
    # are all different from user to user.
    def prints(data):
        counts = np.bincount(data.items)[data.items]
        return {part.tobytes() for part in np.split(counts, data.offsets[1:-1])}

    ours = next_item._kept(next_item._read(SHARED / "ml-1m")[0], 5)
    theirs = read_user_items(SHARED / "ml-1m/ml-1m_sasrec.txt.gz")
    assert len(ours.items) == len(theirs.items) == 999_611
    assert prints(ours) == prints(theirs)
    assert len(prints(ours)) == 6040
