"""The benchmark's page and clock, on made figures."""

import types

import pytest

from benchmarks import bench_retrieval, run, sequences
from benchmarks.sequence_peers import PEERS, PlainBST
from benchmarks.shapes import LARGE, SEQUENCE_VOCABULARIES, VOCABULARIES, YARDSTICKS
from benchmarks.trace import WARM_UP, AfterImport, Clock
from rec.assemble import Job
from rec.config.load import load_text
from rec.world import World


def test_the_shapes_are_those_of_the_yardsticks():
    assert sum(VOCABULARIES) == 3_361_000
    assert sum(LARGE) == 6_000_000
    assert len(VOCABULARIES) == len(LARGE) == 26
    # 27 vectors have 351 pairs; 416 sparse values and 16 of the bottom MLP stand beside.
    assert YARDSTICKS[0].mlps[1][0] == 351 + 416 + 16
    # Five tables of 302,510 rows in all, of width 16, of 4 bytes.
    assert sum(SEQUENCE_VOCABULARIES) == 302_510
    assert {one.name: one.table_bytes for one in YARDSTICKS}["din"] == 302_510 * 16 * 4


def test_a_missed_limit_is_marked():
    assert run.limit(22.04, 23) == "22.0 <= 23.0"
    assert run.limit(24, 23) == "24.0 > 23.0 (missed)"
    table = {"ProtoRec, lazy Adam": 40.0, "DeepCTR-Torch": 390.0, "plain PyTorch, dense Adam": None}
    assert run.peer_rows({"deepfm": table}) == [
        ["ProtoRec, lazy Adam", "40", "1.0x"],
        ["DeepCTR-Torch", "390", "9.8x (missed)"],
        ["plain PyTorch, dense Adam", None, None],
    ]


def test_a_peer_is_beside_the_models_that_are_held_against_it():
    assert {*sequences.VARIANTS, *sequences.MORE_PEERS} == set(PEERS)
    turns = {"100000": [900.0], "1000000": [2100.0, 2000.0, 3000.0]}
    slow = {"100000": [800.0], "1000000": [1000.0]}
    found = {"DeepCTR-Torch DIN": turns, "ProtoRec DIN, 50 steps": slow, "ProtoRec DIN, 1 to 50 steps": turns}
    rows = sequences.rows(found)
    assert rows[0] == ["DeepCTR-Torch DIN", "900", "0", "1.0x", "2100", "1000", "1.0x"]
    assert rows[1] == ["DeepCTR-Torch DIN without L2", *[None] * 6]
    assert rows[2] == ["ProtoRec DIN, 50 steps", "800", "0", "1.1x", "1000", "0", "2.1x (missed)"]
    assert "| plain PyTorch BST, dense Adam | - |" in "\n".join(sequences.section(found))
    assert "Medians of up to 3 turns" in "\n".join(sequences.section(found))


@pytest.mark.parametrize("variant", [sequences.Variant("din"), sequences.Variant("bst")], ids=str)
def test_peers_of_a_sequence_model_have_as_many_parameters(variant):
    items = 30
    loaded = load_text(sequences.config(variant, items))
    assert loaded.warnings == []
    network = Job(loaded, World(), "cpu").network(backend="plain")
    # DeepCTR-Torch's, counted there with 30 items; its Dice has a scale and a shift of 64 and 16 columns besides.
    assert _parameters(network) == (
        151_186 - 160 if variant.model == "din" else _parameters(PlainBST(items, sparse=False))
    )


def _parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_histories_have_the_lengths_that_are_asked_for():
    _, steps, lengths = sequences.columns(40, 500, full=False)
    assert (lengths.min(), lengths.max()) == (1, 50)
    assert len(steps) == lengths.sum()
    assert (steps.min(), steps.max()) == (1, 40)  # 0 is the peers' padding
    assert (sequences.columns(40, 3, full=True)[2] == 50).all()


def test_an_index_and_the_evaluation_are_measured_in_small(monkeypatch):
    pytest.importorskip("faiss")
    small = {"ITEMS": 2000, "INDEXED": 2000, "QUERIES": 20, "CLUSTERS": 10, "NEAREST": 5, "USERS": 8}
    for name, value in small.items():
        monkeypatch.setattr(bench_retrieval, name, value)
    found = bench_retrieval.index()
    # A graph over so few vectors finds nearly all of them.
    assert all(0.9 < one["recall"] <= 1 for one in found.values())
    text = "\n".join(bench_retrieval.section({"index": found, "top_k": bench_retrieval.top_k()}))
    assert text.count("HNSW") == 2
    assert "users/s" in text


def test_the_page_of_retrieval_has_what_was_measured_only():
    assert bench_retrieval.section({}) == ["## Retrieval", "", ""]
    found = {"top_k": {"users_per_s": 300.0, "products_users_per_s": 500.0}}
    assert "300.0 users/s; the products alone 500.0" in "\n".join(bench_retrieval.section(found))


def test_the_clock_wraps_each_step_and_leaves_the_first_ones_out():
    class TrainStep:
        def __call__(self, batches, *, step):
            return step

    module = types.SimpleNamespace(TrainStep=TrainStep)
    clock = Clock(profile=False)
    clock.wrap(module)
    batch = types.SimpleNamespace(size=4)
    assert [TrainStep()([batch, batch], step=step) for step in range(WARM_UP + 5)] == list(range(WARM_UP + 5))
    report = clock.report()
    assert report["steps"] == WARM_UP + 5
    assert report["rows"] == 5 * 8
    assert report["cpu_s_per_million"] >= 0
    assert report["first_step_cpu_s"] > 0


def test_a_module_is_seen_after_its_import(tmp_path, monkeypatch):
    import sys

    (tmp_path / "made_for_this_test.py").write_text("VALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    hook = AfterImport("made_for_this_test", lambda module: seen.append(module.VALUE))
    monkeypatch.setattr(sys, "meta_path", [hook, *sys.meta_path])
    import made_for_this_test  # noqa: F401

    assert seen == [3]
