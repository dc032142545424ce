"""Raw rows to scores from the export folder alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rec.config.errors import DataError
from rec.data.encoder import Encoder
from rec.export import layout
from rec.export.samples import tensors_of
from rec.export.serving import ServingModule
from rec.serve import Predictor
from tests.export.small_job import data, export, job


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    return export(tmp_path_factory.mktemp("job") / "export", rows=data())


@pytest.fixture(scope="module")
def predictor(exported) -> Predictor:
    return Predictor(exported[0], batch_size=128)


ROW = {"user": 1, "tags": [1, 2], "words": [("a", 0.5)], "shop": 3, "price": 9.5, "hist": [1, 2]}


def test_scores_are_those_of_the_trained_network(exported, predictor: Predictor):
    _, network, tasks = exported
    config, *_ = job()
    encoder = Encoder.from_config(config, with_labels=False)
    with torch.no_grad():
        eager = ServingModule(network, tasks).eval()(tensors_of(encoder, data().select(predictor.schema.names)))
    got = predictor.predict(data())  # more columns than needed, in three batches
    assert list(got) == ["logits", "probs"] == predictor.outputs
    # float32 sums in another order
    np.testing.assert_allclose(got["probs"], eager["probs"], atol=1e-6)


def test_tables_and_batches_score_alike(predictor: Predictor):
    table = pa.Table.from_batches([data().slice(0, 100), data().slice(100)])
    np.testing.assert_array_equal(predictor.predict(table)["probs"], predictor.predict(data())["probs"])


def test_dicts_score_as_arrow_rows(predictor: Predictor):
    rows = data().select(predictor.schema.names).slice(0, 5).to_pylist()
    want = predictor.predict(data())["probs"][:5]
    np.testing.assert_allclose(predictor.predict(rows)["probs"], want, atol=1e-6)
    for row in rows:  # lists and text where the data had delimited text and numbers
        row["tags"] = [int(t) for t in row["tags"].split("|")] if row["tags"] else []
        row["user"] = None if row["user"] is None else str(row["user"])
    np.testing.assert_allclose(predictor.predict(rows)["probs"], want, atol=1e-6)


def test_one_user_with_many_candidates(predictor: Predictor):
    user = {k: ROW[k] for k in ("user", "hist")}
    items = [{k: v for k, v in ROW.items() if k not in user} | {"shop": shop} for shop in range(4)]
    apart = predictor.predict([user | item for item in items])
    np.testing.assert_array_equal(predictor.predict(items, shared=user)["probs"], apart["probs"])


def test_a_key_left_out_of_a_row_is_missing(predictor: Predictor):
    rows = [ROW, {k: v for k, v in ROW.items() if k != "words"}, ROW | {"words": None}]
    probs = predictor.predict(rows)["probs"]
    assert probs[1] == probs[2] != probs[0]


def test_no_rows_give_no_scores(predictor: Predictor):
    assert predictor.predict([])["probs"].shape == (0,)
    assert predictor.predict(data().slice(0, 0))["probs"].shape == (0,)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW | {"prize": 1.0}], 'column "prize": no feature reads it; did you mean "price"'),
        ([{k: v for k, v in ROW.items() if k != "shop"}], 'column "shop": no row has it'),
        ([ROW | {"price": "cheap"}], 'column "price"'),
        ([ROW, ROW | {"price": "cheap"}], 'column "price": values cannot be read as one type'),
        ([ROW] * 200 + [ROW | {"shop": 9}], r'row 200, column "shop"'),  # num_buckets: 9
    ],
)
def test_wrong_requests_are_told(predictor: Predictor, rows: list, message: str):
    with pytest.raises(DataError, match=message):
        predictor.predict(rows)


def test_a_missing_column_is_told(predictor: Predictor):
    with pytest.raises(DataError, match="price"):
        predictor.predict(data().drop_columns(["price"]))


def test_the_golden_request_scores_its_answer(predictor: Predictor):
    assert predictor.check() == 0.0


def copy_of(exported, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(exported[0], tmp_path / "export"))


def test_a_changed_library_would_be_seen(exported, tmp_path: Path):
    import pyarrow.parquet as pq

    folder = copy_of(exported, tmp_path)
    answer = pq.read_table(folder / layout.GOLDEN_ANSWER).to_pydict()
    answer["probs"][0] += 0.01
    pq.write_table(pa.table(answer), folder / layout.GOLDEN_ANSWER)
    with pytest.raises(DataError, match=r"scores 1\.0e-02 off its answer"):
        Predictor(folder, verify=False).check()


def test_damage_is_refused_by_name(exported, tmp_path: Path):
    folder = copy_of(exported, tmp_path)
    with open(folder / layout.MODEL, "r+b") as file:
        file.seek(1000)
        file.write(b"\0\0\0\0\0\0\0\0")
    with pytest.raises(DataError, match=r"scripted_model\.pt: damaged"):
        Predictor(folder)
    (folder / layout.CONFIG).unlink()
    with pytest.raises(DataError, match=r"pipeline\.config: missing from the export"):
        Predictor(folder, verify=False)
    (folder / layout.MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: damaged"):
        Predictor(folder)


def test_a_folder_without_an_export_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"no export: it has no manifest\.json"):
        Predictor(tmp_path)


def test_a_newer_format_is_told(exported, tmp_path: Path):
    folder = copy_of(exported, tmp_path)
    manifest = json.loads((folder / layout.MANIFEST).read_text()) | {"format": 99}
    (folder / layout.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="format 99 of a newer version"):
        Predictor(folder)


def test_serving_loads_no_training_code(exported):
    code = (
        "import sys; from rec.serve import Predictor; p = Predictor(sys.argv[1]); p.check(); "
        "heavy = ('torchrec', 'fbgemm', 'rec.train', 'rec.embedding', 'rec.models'); "
        "print([m for m in sys.modules if m.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
