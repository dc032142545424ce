import gzip

import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.convert import frappe

HEADER = "label,user,item,daytime,weekday,isweekend,homework,cost,weather,country,city\n"
ROW = "1,56,4860,5041,5050,5054,5055,5058,5060,5085,5169\n"


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress((HEADER + ROW).encode()))
    return tmp_path


def test_each_field_begins_at_zero(folder, tmp_path):
    info = frappe.convert(folder, tmp_path / "out")
    assert pq.read_table(tmp_path / "out/test").to_pylist() == [
        dict(label=1, user=56, item=3903, daytime=2, weekday=4, isweekend=1, homework=0, cost=0, weather=0, country=16,
             city=20)
    ]  # fmt: skip
    assert sum(info["ids"].values()) == 5382


def test_the_ranges_of_the_fields_meet():
    ends = [first + size for first, size in frappe.FIELDS.values()]
    assert [first for first, _ in frappe.FIELDS.values()] == [0, *ends[:-1]]


def test_an_id_outside_its_field_is_refused(folder, tmp_path):
    (folder / "valid.csv.gz").write_bytes(gzip.compress((HEADER + ROW.replace("5041", "5046")).encode()))
    with pytest.raises(DataError, match=r'valid.csv.gz, column "daytime": ids 5046...5046, expected 5039...5045'):
        frappe.convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_missing_column_are_named(folder, tmp_path):
    (folder / "test.csv.gz").write_bytes(gzip.compress(b"label,user\n1,2\n"))
    with pytest.raises(DataError, match="has no column 'item'"):
        frappe.convert(folder, tmp_path / "out")
    (folder / "test.csv.gz").unlink()
    with pytest.raises(DataError, match=r"has no test.csv"):
        frappe.convert(folder, tmp_path / "out")
