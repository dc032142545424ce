import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tools.generate.__main__ import main
from tools.generate.multimodal import MODALITIES, Plan, Scenes, Truth, generate

SMALL = Plan(train=400, valid=50, test=3000)


def scenes(**has: list[bool]) -> Scenes:
    """Row 0: topics 0, 1, said 1, -1, topic 0 stressed; row 1: topic 1 said 1, mocked."""
    return Scenes(
        topics=np.array([[0, 1], [1, -1]]),
        said=np.array([[1, -1], [1, 1]]),
        stress=np.array([[1, 0], [0, -1]]),
        fillers=np.array([1, 1]),
        moods=np.array([[0.5, 1.5], [-1.0, np.nan]]),
        has={name: np.array(has.get(name, [True, True])) for name in MODALITIES},
    )


def test_the_score_by_hand():
    # (1 (1 + 2) - 1) / sqrt 2 + 1 = 2.414; 1 (1 - 2) / 1 - 1 = -2
    assert scenes().whole() == pytest.approx([2 / 2**0.5 + 1, -2])
    assert scenes().known("text") == pytest.approx([0, 1])
    assert scenes().known("audio") == pytest.approx([0, 0])
    assert scenes().known("text", "audio") == pytest.approx([2 / 2**0.5, -1])
    # What a row lacks is not known, and the score has it all the same.
    lacks = scenes(audio=[False, True], video=[True, False])
    assert lacks.known(*MODALITIES) == pytest.approx([0 + 1, -1])
    assert lacks.whole() == pytest.approx(scenes().whole())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "out"
    return path, generate(SMALL, str(path))


def test_nothing_predicts_better_than_the_planted_median(folder):
    # With everything the error left is that of the noise, sqrt(2 / pi) x 0.5 = .399, and of what rows lack.
    truth = Truth(Plan(missing=0))
    best = truth.rows(20_000, seed=0)[1]
    assert best["mae"] == pytest.approx(0.399, abs=0.01)  # four standard errors of 20,000 rows
    assert best["mae"] < best["mae_without_video"] < best["mae_without_audio"] < best["mae_without_text"]
    assert min(best[f"mae_{m}_alone"] for m in MODALITIES) > 2 * best["mae"]
    _, info = folder
    assert info["bayes"]["test"]["mae"] > best["mae"]


def test_the_vectors_tell_the_truth(folder):
    """The score of each row can be read from its vectors: what the median is made of is there."""
    truth = Truth(Plan(missing=0, noise=0.0))
    table = truth.rows(200, seed=3)[0]

    def steps(name: str, row: int) -> np.ndarray:
        return np.array(table[name][row].as_py(), np.float64)

    for row in range(200):
        text, audio, video = (steps(name, row) for name in MODALITIES)
        topics, said = (text @ truth.text[:-1].T).argmax(1), np.sign(text @ truth.text[-1])
        stress = np.zeros(SMALL.topics)
        for step in audio:
            codes = step @ truth.audio.T / 4
            if codes[:-1].max() > 0.5:
                stress[codes[:-1].argmax()] = np.sign(codes[-1])
        score = (said * (1 + 2 * stress[topics])).sum() / len(text) ** 0.5 + (video @ truth.video[0] / 4).mean()
        assert score == pytest.approx(table["score"][row].as_py(), abs=0.15)


def test_lengths_differ_and_some_rows_lack_a_modality(folder):
    path, _ = folder
    table = pq.read_table(path / "train")
    assert str(table.schema.field("text").type) == "list<element: fixed_size_list<element: float>[16]>"
    lengths = {name: np.diff(table[name].combine_chunks().offsets.to_numpy()) for name in MODALITIES}
    assert {name: int(n.max()) for name, n in lengths.items()} == {"text": 6, "audio": 9, "video": 4}
    for n in lengths.values():
        assert 0.04 < (n == 0).mean() < 0.18  # a tenth, four standard errors of 400 rows


def test_the_test_rows_without_a_modality_are_the_same_rows(folder):
    path, info = folder
    test, without = pq.read_table(path / "test"), pq.read_table(path / "test_without_audio")
    assert without["score"].equals(test["score"])
    assert without["text"].equals(test["text"])
    assert without["audio"].combine_chunks().flatten().to_pylist() == []
    assert info["rows"]["test_without_audio"] == 3000


def test_the_same_seed_is_the_same_data(folder, tmp_path):
    path, _ = folder
    generate(SMALL, str(tmp_path / "again"))
    assert pq.read_table(tmp_path / "again/valid").equals(pq.read_table(path / "valid"))
    assert json.loads((path / "info.json").read_text())["dataset"] == "planted_multimodal"


def test_the_command_refuses_sizes_that_do_not_go_together(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["multimodal", "--topics", "20", "--output", str(tmp_path / "out")])
    assert "20 topics need text and audio vectors of 21 columns" in capsys.readouterr().err
