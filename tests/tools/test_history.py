import numpy as np
import pytest

from tools.convert.history import Windows, length_summary, lists, sort_behaviours, windows_before


def joined(user, time, row_user, row_time, length):
    """The history of each row as places in the log, by the functions under test."""
    user, time = np.array(user), np.array(time)
    order = sort_behaviours(user, time)
    windows = windows_before(
        user[order], time[order], row_user=np.array(row_user), row_time=np.array(row_time), length=length
    )
    return lists(windows.offsets(), order[windows.places()]).to_pylist()


def test_a_history_is_what_the_user_did_strictly_before_most_recent_last():
    #            0  1  2  3  4  5
    user, time = [2, 1, 1, 1, 2, 1], [5, 9, 3, 7, 1, 7]
    # User 1 in time: 2 (at 3), 3 and 5 (both at 7, in the order of the file), 1 (at 9).
    assert joined(user, time, [1, 1, 1, 1, 2, 3], [3, 7, 8, 10, 5, 99], 3) == [
        [],  # 2 itself is of this moment
        [2],  # nor is a behaviour of the same second history
        [2, 3, 5],
        [3, 5, 1],  # the last three of four
        [4],
        [],  # a user without a log
    ]


def test_no_log_gives_empty_histories():
    assert joined([], [], [1, 2], [5, 5], 4) == [[], []]
    assert joined([], [], [], [], 4) == []


def test_the_join_equals_a_loop_over_rows():
    draw = np.random.default_rng(0)
    user, time = draw.integers(0, 20, 500), draw.integers(-50, 50, 500)
    row_user, row_time = draw.integers(0, 22, 300), draw.integers(-60, 60, 300)
    expected = []
    for who, when in zip(row_user, row_time, strict=True):
        places = [place for place in np.argsort(time, kind="stable") if user[place] == who and time[place] < when]
        expected.append(places[-7:])
    assert joined(user, time, row_user, row_time, 7) == expected


def test_rows_are_taken_with_their_steps():
    windows = Windows(np.array([0, 2, 2, 4, 1]), np.array([2, 5, 2, 5, 3])).take(np.array([1, 3, 2, 0]))
    assert windows.places().tolist() == [2, 3, 4, 4, 0, 1]
    assert windows.offsets().tolist() == [0, 3, 4, 4, 6]


def test_keys_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="exceed 63 bits"):
        windows_before(np.array([2**40]), np.array([0]), row_user=np.array([1]), row_time=np.array([2**40]), length=2)


def test_summary_by_hand():
    assert length_summary(np.array([0, 2, 4, 6])) == {
        "mean": 3.0, "p25": 1.5, "median": 3.0, "p75": 4.5, "max": 6, "empty": 0.25
    }  # fmt: skip
