"""Exports: complete, equal to the trained network, loadable by PyTorch alone, and replaced in one step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from rec.config.errors import ConfigError
from rec.data.encoder import Encoder
from rec.export import Exporter, ExportError, exporter, golden, layout, program, script
from rec.export.compare import compare, difference
from rec.export.samples import empty_rows, made_up_rows, tensors_of
from rec.export.serving import ServingModule
from tests.export.small_job import MODEL, data, export, job


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("job") / "export"
    return export(folder, rows=data(), export="torch_export: true")


# Loaded by name in a process that can import neither rec nor any library of ops.
ALONE = """
import json, sys
for name in ("rec", "torchrec", "fbgemm_gpu", "google.protobuf", "pyarrow"):
    sys.modules[name] = None
import torch
model = torch.jit.load(sys.argv[1] + "/scripted_model.pt")
golden = json.load(open(sys.argv[1] + "/golden_tensors.json"))
def tensors(part):
    return {k: torch.tensor(t["values"], dtype=getattr(torch, t["dtype"])).reshape(t["shape"])
            for k, t in golden[part].items()}
scores = model(tensors("features"))
assert list(scores) == list(golden["scores"]) and len(scores["probs"]) == 16
print(max(float((scores[k] - v).abs().max()) for k, v in tensors("scores").items()))
"""


def test_pytorch_alone_loads_it_and_gives_the_golden_scores(exported, tmp_path: Path):
    folder, *_ = exported
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", ALONE, str(folder)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 0.0


def test_the_reloaded_model_equals_eager_for_any_number_of_rows(exported):
    folder, network, tasks = exported
    eager = ServingModule(network, tasks).eval()
    config, *_ = job()
    encoder = Encoder.from_config(config, with_labels=False)
    names = encoder.request_schema().names
    batches = {str(n): tensors_of(encoder, data().select(names).slice(0, n)) for n in (1, 2, 63, 300)}
    batches |= {
        "empty": tensors_of(encoder, empty_rows(encoder, 4)),
        "made up": tensors_of(encoder, made_up_rows(encoder, 512)),
    }
    found = compare(script.load(folder / layout.MODEL), eager, batches)
    # float32 sums in another order
    assert max(d.largest for d in found.values()) < 1e-6
    exported_program = program.load(folder / layout.PROGRAM)
    found = compare(exported_program, eager, batches)
    assert max(d.largest for d in found.values()) < 1e-6
    nothing = tensors_of(encoder, data().select(names).slice(0, 0))  # torchrec itself refuses 0 rows
    for model in (script.load(folder / layout.MODEL), exported_program):
        assert model(nothing)["probs"].shape == (0,)


def test_batch_1_equals_its_row_of_batch_n(exported):
    folder, *_ = exported
    model = script.load(folder / layout.MODEL)
    config, *_ = job()
    encoder = Encoder.from_config(config, with_labels=False)
    rows = data().select(encoder.request_schema().names)
    whole = model(tensors_of(encoder, rows))["probs"]
    one = torch.cat([model(tensors_of(encoder, rows.slice(i, 1)))["probs"] for i in range(20)])
    # matrix products of other shapes add in another order
    torch.testing.assert_close(one, whole[:20], atol=1e-6, rtol=0)


def test_the_manifest_says_what_there_is(exported):
    folder, *_ = exported
    manifest = layout.read_manifest(folder)
    assert manifest["step"] == 7
    assert manifest["metrics"] == {"auc": 0.7}
    assert manifest["ops_libraries"] == []
    assert manifest["versions"]["torch"] == torch.__version__
    assert {(i["name"], i["dtype"], tuple(i["shape"])) for i in manifest["inputs"]} >= {
        ("user.values", "int64", ("N",)),
        ("tags.lengths", "int32", ("B",)),
        ("words.weights", "float32", ("N",)),
        ("price.values", "float32", ("B", 1)),
    }
    assert manifest["outputs"] == [{"name": n, "dtype": "float32", "shape": ["B"]} for n in ("logits", "probs")]
    check = manifest["check"]
    assert check["compared_with"] == "the trained network"
    assert {"300 rows of data", "1 row of data", "1 row with everything missing"} <= set(check["batches"])
    assert check["max_abs_difference"] <= 1e-6
    assert set(manifest["files"]) == {p.name for p in folder.iterdir()} - {layout.MANIFEST}
    assert manifest["tables"]["metrics_rows"] == 300
    assert manifest["tables"]["metrics"].keys() == {"auc", "logloss"}
    assert "error" not in manifest["program"]


def test_golden_request_and_answer_are_of_the_data(exported):
    folder, *_ = exported
    request, answer = pq.read_table(folder / layout.GOLDEN_REQUEST), pq.read_table(folder / layout.GOLDEN_ANSWER)
    assert request.num_rows == answer.num_rows == golden.ROWS
    assert "note" not in request.column_names  # the columns that features read, no others
    assert request["price"].to_pylist() == data()["price"].to_pylist()[: golden.ROWS]
    _, scores = golden.read_tensors(folder)
    assert scores["probs"].tolist() == answer["probs"].to_pylist()


def test_no_data_is_needed(tmp_path: Path):
    folder, *_ = export(tmp_path / "export")
    manifest = layout.read_manifest(folder)
    assert manifest["golden"] == {"rows": 16, "made_up": True}
    assert "metrics" not in manifest["tables"]
    assert "program" not in manifest


def test_several_tasks_and_classes(tmp_path: Path):
    towers = "".join(
        f'task_towers {{ tower_name: "{t}" label_name: "{t}" losses {{ binary_cross_entropy {{}} }} }}'
        for t in ("click", "buy")
    )
    model = f"mmoe {{ expert_mlp {{ hidden_units: 8 }} num_expert: 2 {towers} }}"
    folder, *_ = export(tmp_path / "a", model=model, rows=data())
    outputs = [o["name"] for o in layout.read_manifest(folder)["outputs"]]
    assert outputs == ["logits_click", "probs_click", "logits_buy", "probs_buy"]
    folder, *_ = export(tmp_path / "b", model=f"{MODEL} num_class: 3 losses {{ softmax_cross_entropy {{}} }}")
    assert layout.read_manifest(folder)["outputs"][1] == {"name": "probs", "dtype": "float32", "shape": ["B", 3]}


def test_a_regression_serves_y_and_its_metrics_are_measured(tmp_path: Path):
    model = f"{MODEL} losses {{ l2_loss {{}} }} metrics {{ mean_squared_error {{}} }}"
    folder, *_ = export(tmp_path / "export", model=model, rows=data())
    manifest = layout.read_manifest(folder)
    assert [o["name"] for o in manifest["outputs"]] == ["y"]
    assert manifest["tables"]["metrics"]["mean_squared_error"] > 0


def test_vocabulary_files_travel_with_it(tmp_path: Path):
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("red\ngreen\nblue\n")
    features = f"""feature_configs {{ id_feature {{ feature_name: "colour" expression: "item:colour" embedding_dim: 4
        vocab_file: "{vocabulary}" default_bucketize_value: 0 }} }}"""
    group = 'feature_groups { group_name: "deep" group_type: DEEP feature_names: "colour" }'
    folder, *_ = export(tmp_path / "export", features=features, group=group)
    vocabulary.unlink()
    from rec.serve import Predictor

    probs = Predictor(folder).predict([{"colour": [c]} for c in ("red", "green", "pink", "blue")])["probs"]
    assert probs[0] == probs[2]  # red has id 0, as unknown words
    assert len(set(probs.tolist())) == 3
    assert str(tmp_path) not in (folder / layout.CONFIG).read_text()


def test_an_older_export_is_replaced_and_leftovers_are_cleared(tmp_path: Path):
    stale = tmp_path / "export.tmp-1-dead"
    stale.mkdir()
    folder, *_ = export(tmp_path / "export")
    before = (folder / layout.MODEL).read_bytes()
    (folder / "old_file").write_text("of the older export")
    export(tmp_path / "export", seed=1)
    assert (folder / layout.MODEL).read_bytes() != before
    assert not (folder / "old_file").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_systems_without_exchange_replace_by_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(layout, "_exchange", lambda first, second: False)
    for text in ("one", "two"):
        with layout.replacing(tmp_path / "export") as fresh:
            (fresh / "file").write_text(text)
    assert (tmp_path / "export" / "file").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_a_model_that_computes_something_else_never_becomes_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, *_ = export(tmp_path / "export")
    before = (folder / layout.MANIFEST).read_text()

    def spoiled(network, tables, *rest):
        tables = {name: table + 0.01 for name, table in tables.items()}
        return plain(network, tables, *rest)

    plain = exporter.plain_network
    monkeypatch.setattr(exporter, "plain_network", spoiled)
    with pytest.raises(ExportError, match=r"differs from the trained network by .* \(tolerance 2e-05\)"):
        export(tmp_path / "export")
    assert (folder / layout.MANIFEST).read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


def test_the_network_stays_as_it_was(tmp_path: Path):
    config, network, tasks = job()
    network.train()
    before = {k: v.clone() for k, v in network.model.state_dict().items()}
    Exporter(config, tasks, directory=tmp_path / "export").export(network)
    assert network.training
    assert network.model.training
    for name, value in network.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_unknown_table_type_is_told():
    # An export made in code meets no check of the whole config.
    config, _, tasks = job()
    config.export_config.table_data_type = "INT9"
    with pytest.raises(ConfigError, match='table_data_type is "INT9"; did you mean "INT8"'):
        Exporter(config, tasks, directory="unused")


def test_settings_without_effect_are_warned_of(caplog: pytest.LogCaptureFixture):
    config, _, tasks = job(export="cudnn_allow_tf32: false")
    Exporter(config, tasks, directory="unused")
    assert "cudnn_allow_tf32 has no effect" in caplog.text


class Branching(nn.Module):
    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = features["x"]
        return {"y": x if x.sum() > 0 else -x}


def test_a_model_that_branches_on_data_is_told():
    with pytest.raises(ConfigError, match=r"branches on the content of a tensor.*torch\.where"):
        script.trace(Branching())


class TestDifference:
    def expected(self) -> dict[str, torch.Tensor]:
        return {"probs": torch.tensor([0.5, 100.0])}

    def test_by_hand(self):
        found = difference({"probs": torch.tensor([0.75, 101.0])}, self.expected())
        assert (found.largest, found.relative) == (1.0, 0.25)

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"y": torch.zeros(2)}, "outputs are"),
            ({"probs": torch.zeros(1)}, r"is torch.float32 \[1\], expected torch.float32 \[2\]"),
            ({"probs": torch.zeros(2).double()}, "is torch.float64"),
            ({"probs": torch.tensor([0.5, float("nan")])}, "not finite at other rows"),
        ],
    )
    def test_what_cannot_be_compared(self, other: dict, message: str):
        with pytest.raises(ValueError, match=message):
            difference(other, self.expected())


def test_the_config_in_it_is_whole(exported):
    from rec.config.load import load_config

    folder, *_ = exported
    config = load_config(folder / layout.CONFIG).config
    assert len(config.feature_configs) == 6
    assert json.loads((folder / layout.MANIFEST).read_text())["columns"][0]["name"] == "user"
