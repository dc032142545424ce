from __future__ import annotations

import logging

import pyarrow as pa
import pytest

from rec.config.errors import DataError
from rec.data.seen import Seen


def had(ids: pa.Array, column: pa.Array) -> list[list[int]]:
    return [numbers.tolist() for numbers in Seen("seen", ids)(pa.record_batch({"seen": column}))]


@pytest.mark.parametrize("ids", [pa.array([7, 8, 9]), pa.array(["7", "8", "9"])])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([[9, 7], [], None, [5, 8]]),
        pa.array([["9", "7"], [], None, ["5", "8"]]),
        pa.array([["9", "7"], [], None, ["5", "8"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ],
)
def test_numbers_and_texts_name_the_same_items(ids, column):
    assert had(ids, column) == [[2, 0], [], [], [1]]


def test_a_column_of_single_ids_is_one_item_a_row():
    assert had(pa.array([7, 8, 9]), pa.array([9, None, 7], pa.int32())) == [[2], [], [0]]


@pytest.mark.parametrize("ids", [pa.array([7, 8, 9]), pa.array(["7", "8", "9"])])
def test_texts_are_lists_between_delimiters(ids):
    column = pa.array(["9;7", "", None, "5; 8 ;", "8"])
    seen = Seen("seen", ids, delimiter=";")(pa.record_batch({"seen": column}))
    assert [numbers.tolist() for numbers in seen] == [[2, 0], [], [], [1], [1]]


def test_numbers_are_no_words():
    with pytest.raises(DataError, match=r'column "seen": has numbers, but the ids of the items are texts.*a[78]'):
        had(pa.array(["a7", "a8"]), pa.array([[7]]))


def test_a_column_that_the_rows_lack_is_told():
    with pytest.raises(DataError, match='"seen"'):
        Seen("seen", pa.array([7]))(pa.record_batch({"had": [[7]]}))


def test_where_no_id_is_an_item_it_is_told(caplog):
    seen = Seen("seen", pa.array(["7", "8"]))
    seen(pa.record_batch({"seen": ["7;8", "8;7"]}))
    with caplog.at_level(logging.WARNING):
        seen.tell()
    assert 'none of the 2 ids in "seen" is that of an item; a text is one id: if it holds several' in caplog.text
    caplog.clear()
    seen(pa.record_batch({"seen": ["7", "5"]}))
    seen.tell()
    assert not caplog.text
