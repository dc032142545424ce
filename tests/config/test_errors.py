from __future__ import annotations

import pickle

from rec.config.errors import ConfigError, DataError
from rec.config.names import nearest, suggest


def test_words_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("bad", None, "f", hint="do", where="a:1:2")))
    assert str(error) == "a:1:2: bad; do"
    data = pickle.loads(pickle.dumps(DataError("bad", file="f.parquet", row=3, column="c")))
    assert str(data) == 'f.parquet, row 3, column "c": bad'
    assert (data.file, data.row, data.column) == ("f.parquet", 3, "c")


def test_data_error_tells_what_it_knows() -> None:
    assert str(DataError("bad")) == "bad"
    assert str(DataError("bad", file="f")) == "f: bad"
    assert str(DataError("bad", column="c")) == 'column "c": bad'


def test_nearest_ignores_case_and_gives_up_on_strangers() -> None:
    assert nearest("AUC", ["auc", "logloss"]) == "auc"
    assert nearest("zebra", ["auc", "logloss"]) is None
    assert suggest("zebra", ["auc"], what="metrics") == 'metrics: "auc"'
    assert suggest("zebra", [], what="metrics") == "there are no metrics"
