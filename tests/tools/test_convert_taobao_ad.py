"""Taobao Ad Display/Click on small files of its layout, quirks of the header included."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.config.errors import DataError
from tools.convert import taobao_ad
from tools.convert.__main__ import main

# 2017-05-13 00:00 in Beijing is 16:00 UTC of the 12th.
LAST = 1494604800
HOUR, DAY = 3600, 86400

SAMPLE = "user,time_stamp,adgroup_id,pid,nonclk,clk\n"
ADS = "adgroup_id,cate_id,campaign_id,customer,brand,price\n"
# As published: the last name ends with a blank; levels of consumption and city may be empty.
USERS = ",".join(("userid", *taobao_ad.LEVELS)) + " \n"
LOG = "user,time_stamp,btag,cate,brand\n"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "raw"
    path.mkdir()
    (path / "raw_sample.csv").write_text(
        SAMPLE
        + f"7,{LAST + 5},100,430548_1007,1,0\n"  # test
        + f"7,{LAST - DAY},100,430539_1007,0,1\n"  # valid, its first second
        + f"7,{LAST - DAY - 1},200,430548_1007,1,0\n"  # train, its last second: 23:59:59
        + f"8,{LAST - 2 * DAY},100,430548_1007,1,0\n"  # train
        + f"9,{LAST},100,430548_1007,1,0\n"  # no such user
        + f"8,{LAST},999,430548_1007,1,0\n"  # no such ad
    )
    (path / "ad_feature.csv").write_text(ADS + "100,31,4,5,NULL,9.9\n200,32,4,6,61,\n")
    (path / "user_profile.csv").write_text(USERS + "7,0,5,2,5,,3,0,3\n8,96,12,1,0,2,1,1,\n")
    (path / "behavior_log.csv").write_text(
        LOG
        + f"7,{LAST - DAY - 2},buy,32,61\n"
        + f"8,{LAST - 3 * DAY},pv,31,62\n"
        + f"7,{LAST - DAY - 9},pv,31,NULL\n"
        + f"7,{LAST - DAY},cart,32,61\n"
        + f"7,{LAST - DAY},fav,31,61\n"
        + f"7,{LAST + 5},pv,31,61\n"  # of the test row's own second
        + f"7,{LAST + 9},pv,31,61\n"
    )
    return path


def read(folder, split):
    return pq.read_table(folder / split).to_pylist()


def test_impressions_by_hand(folder, tmp_path):
    info = taobao_ad.convert(folder, tmp_path / "o", min_count=1)
    assert info["rows"] == {"test": 1, "train": 2, "valid": 1}
    assert info["impressions_without_profile"] == 2
    assert info["days"] == ["2017-05-11", "2017-05-12", "2017-05-13"]
    # Category: 31 twice in the log before the 13th, 32 twice, impressions 31 twice and 32 once: 31 is 1, 32 is 2.
    # Brand: 61 three times in the log and once shown, 62 once: ids 1 and 2; NULL is 0.
    (row,) = read(tmp_path / "o", "test")
    assert row == dict(
        label=0, user=7, user_id=1, cms_segid=1, cms_group_id=6, final_gender_code=3, age_level=6, pvalue_level=0,
        shopping_level=4, occupation=1, new_user_class_level=4, adgroup_id=1, cate_id=1, campaign_id=1, customer=1,
        brand=0, price=pytest.approx(9.9), pid=2, hour=1, weekday=6, timestamp=LAST + 5,
        hist__cate_id=[1, 2, 2, 1], hist__brand=[0, 1, 1, 1], hist__btag=[1, 4, 2, 3],
        hist__seconds_ago=[DAY + 14, DAY + 7, DAY + 5, DAY + 5],
    )  # fmt: skip
    (row,) = read(tmp_path / "o", "valid")
    # The two behaviours of the same second are not history.
    assert (row["label"], row["pid"], row["hour"], row["weekday"]) == (1, 1, 1, 5)
    assert row["hist__btag"] == [1, 4]
    assert row["hist__seconds_ago"] == [9, 2]
    late, early = sorted(read(tmp_path / "o", "train"), key=lambda row: -row["timestamp"])
    assert (late["hour"], late["weekday"], late["price"], late["brand"]) == (24, 4, None, 1)
    assert late["hist__seconds_ago"] == [8, 1]
    assert (early["user"], early["pvalue_level"], early["new_user_class_level"], early["hist__cate_id"]) == (
        8,
        3,
        0,
        [1],
    )


def test_only_the_chosen_tags_become_history(folder, tmp_path):
    taobao_ad.convert(folder, tmp_path / "o", min_count=1, tags=["buy", "fav"], length=1)
    (row,) = read(tmp_path / "o", "test")
    assert row["hist__btag"] == [3]


def test_rare_values_become_0_and_the_last_day_does_not_count(folder, tmp_path):
    with (folder / "behavior_log.csv").open("a") as log:
        log.writelines(f"8,{LAST + n},pv,77,78\n" for n in range(50))
    info = taobao_ad.convert(folder, tmp_path / "o", min_count=3)
    # Seen three times or more: user 7 no (2 before the last day), ad 100 no, category 31 and 32, brand 61.
    assert info["ids"] == {
        "user_id": 1, "adgroup_id": 1, "cate_id": 3, "campaign_id": 2, "customer": 1, "brand": 2
    }  # fmt: skip


def made(folder, *, users=12, ads=12, shown=300, logged=1000):
    """Files of random content, and the log."""
    draw = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    (folder / "ad_feature.csv").write_text(ADS + "".join(f"{ad},{ad % 5},{ad},1,{ad % 3},1.5\n" for ad in range(ads)))
    (folder / "user_profile.csv").write_text(USERS + "".join(f"{user},1,1,1,1,1,1,1,1\n" for user in range(users)))
    who, when = draw.integers(0, users, shown), LAST - DAY * 6 + draw.integers(0, 7 * DAY, shown) // 600 * 600
    lines = (f"{u},{t},{a},430548_1007,1,0\n" for u, t, a in zip(who, when, draw.integers(0, ads, shown), strict=True))
    (folder / "raw_sample.csv").write_text(SAMPLE + "".join(lines))
    user, time = draw.integers(0, users, logged), LAST - DAY * 9 + draw.integers(0, 10 * DAY, logged) // 600 * 600
    tag = draw.integers(0, 4, logged)
    lines = (f"{u},{t},{taobao_ad.TAGS[k]},1,1\n" for u, t, k in zip(user, time, tag, strict=True))
    with gzip.open(folder / "behavior_log.csv.gz", "wt") as log:
        log.write(LOG + "".join(lines))
    return user, time, tag


@pytest.mark.parametrize("buckets", [1, 7])
def test_the_files_equal_a_loop_over_impressions(tmp_path, buckets):
    user, time, tag = made(tmp_path / "raw")
    taobao_ad.convert(tmp_path / "raw", tmp_path / "o", length=8, min_count=1, buckets=buckets)
    order = np.argsort(time, kind="stable")
    rows = pa.concat_tables([pq.read_table(tmp_path / "o" / split) for split in ("train", "valid", "test")]).to_pylist()
    assert len(rows) == 300
    for row in rows:
        steps = [i for i in order if user[i] == row["user"] and time[i] < row["timestamp"]][-8:]
        assert row["hist__btag"] == (tag[steps] + 1).tolist()
        assert row["hist__seconds_ago"] == (row["timestamp"] - time[steps]).tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "raw"]  # the buckets are gone


def test_what_is_wrong_is_left_out_counted_and_named(folder, tmp_path, capsys):
    log = folder / "behavior_log.csv"
    log.write_text(
        log.read_text() + f"7,{LAST - DAY - 5},view,31,61\n7,-5,pv,31,61\n7,12\n7,{LAST - DAY - 3},pv,x,61\n"
    )
    users = folder / "user_profile.csv"
    users.write_text(users.read_text().replace("8,96,12", "8,97,12"))
    arguments = ["taobao_ad", "--input", str(folder), "--output", str(tmp_path / "o"), "--min_count", "1"]
    assert main(arguments) == 3
    said = capsys.readouterr().err
    assert "user_profile.csv: 1 of 2 rows are wrong, more than 1.00% (--max_wrong)" in said
    assert "row 1, column \"cms_segid\": '97' is not an integer in [0, 96]" in said
    assert not (tmp_path / "o").exists()
    assert main([*arguments, "--max_wrong", "0.6"]) == 0
    info = json.loads((tmp_path / "o/info.json").read_text())
    assert info["wrong"]["rows_left_out"] == {"behavior_log.csv": 3}
    assert info["wrong"]["values_taken_as_missing"] == {"user_profile.csv": 1, "behavior_log.csv": 1}
    told = [Path(text.split(", ")[0]).name + text[text.index(",") :] for text in info["wrong"]["first"]]
    assert told == [
        "user_profile.csv, row 1, column \"cms_segid\": '97' is not an integer in [0, 96]",
        "behavior_log.csv, row 9: has 2 values, expected 5: '7,12'",
        "behavior_log.csv, row 8, column \"time_stamp\": '-5' is not an integer in [1, 2147483647]",
        "behavior_log.csv, row 7, column \"btag\": 'view' is not one of pv, cart, fav, buy",
        "behavior_log.csv, row 10, column \"cate\": 'x' is not an integer in [0, 2147483647]",
    ]
    (valid,) = read(tmp_path / "o", "valid")
    assert valid["hist__cate_id"] == [1, 0, 2]


def test_missing_files_and_columns_are_named(folder, tmp_path):
    (folder / "ad_feature.csv").write_text("adgroup_id,cate_id,price\n1,2,3\n")
    with pytest.raises(
        DataError, match=r"ad_feature.csv: has no column 'campaign_id'; it has adgroup_id, cate_id, price"
    ):
        taobao_ad.convert(folder, tmp_path / "o")
    (folder / "behavior_log.csv").unlink()
    with pytest.raises(DataError, match=r"has no behavior_log.csv; it needs raw_sample.csv, ad_feature.csv"):
        taobao_ad.convert(folder, tmp_path / "o")


def test_one_day_is_too_few(folder, tmp_path):
    (folder / "raw_sample.csv").write_text(SAMPLE + f"7,{LAST + 5},100,430548_1007,1,0\n")
    with pytest.raises(DataError, match="one day only"):
        taobao_ad.convert(folder, tmp_path / "o")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]
