import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tools.ridge import last_steps, main, ridge


def test_ridge_by_hand():
    # Off the means x is -1, 1 and y -2, 2: w = 4 / (2 + strength)
    x, y = np.array([[0.0], [2.0]]), np.array([1.0, 5.0])
    assert ridge(x, y, 0.0)(np.array([[3.0]])) == pytest.approx([7])
    assert ridge(x, y, 2.0)(np.array([[3.0]])) == pytest.approx([5])


def write(folder, rows):
    kind = pa.list_(pa.list_(pa.float32(), 2))
    table = pa.table(
        {"text": pa.array([r[0] for r in rows], kind), "score": pa.array([r[1] for r in rows], pa.float32())}
    )
    folder.mkdir()
    pq.write_table(table, folder / "part-0.parquet")


def test_the_last_step_of_each_row(tmp_path):
    write(tmp_path / "train", [([[1, 2], [3, 4]], 0.0), ([], 1.0), ([[5, 6]], 2.0)])
    assert last_steps(tmp_path / "train", "text").tolist() == [[3, 4], [0, 0], [5, 6]]


def test_a_linear_score_is_found(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        vectors = draw.normal(size=(50, 2))
        write(tmp_path / split, [([[9, 9], v.tolist()], float(v[0] - 2 * v[1])) for v in vectors])
    assert main(["--data", str(tmp_path), "--columns", "text"]) == 0
    mean, alone, _ = capsys.readouterr().out.splitlines()[2:]
    assert "nan" in mean  # a constant has no correlation
    error, correlation = (float(cell) for cell in alone.split("|")[3:5])
    assert error < 0.1
    assert correlation > 0.999
