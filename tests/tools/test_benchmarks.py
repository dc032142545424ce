"""The benchmark's page and clock, on made figures."""

import types

from benchmarks import run
from benchmarks.shapes import LARGE, VOCABULARIES, YARDSTICKS
from benchmarks.trace import WARM_UP, AfterImport, Clock


def test_the_shapes_are_those_of_the_yardsticks():
    assert sum(VOCABULARIES) == 3_361_000
    assert sum(LARGE) == 6_000_000
    assert len(VOCABULARIES) == len(LARGE) == 26
    # 27 vectors have 351 pairs; 416 sparse values and 16 of the bottom MLP stand beside.
    assert YARDSTICKS[0].mlps[1][0] == 351 + 416 + 16


def test_a_missed_limit_is_marked():
    assert run.limit(22.04, 23) == "22.0 <= 23.0"
    assert run.limit(24, 23) == "24.0 > 23.0 (missed)"
    table = {"ProtoRec, lazy Adam": 40.0, "DeepCTR-Torch": 390.0, "plain PyTorch, dense Adam": None}
    assert run.peer_rows({"deepfm": table}) == [
        ["ProtoRec, lazy Adam", "40", "1.0x"],
        ["DeepCTR-Torch", "390", "9.8x (missed)"],
        ["plain PyTorch, dense Adam", None, None],
    ]


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
