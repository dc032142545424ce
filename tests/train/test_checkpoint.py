import io
import json
import os
import pickle
import warnings

import pytest
import torch
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from rec.train import safe_dcp
from rec.train.checkpoint import Checkpoint, Checkpointer, CheckpointError, find_checkpoint


def tensors(value=1.0):
    return {
        "model/w": torch.full((3, 4), value),
        "tables/t": torch.arange(10.0).reshape(5, 2) * value,
        "rank0/rng/cpu": torch.get_rng_state(),
        "optimizer/w/step": torch.tensor(value),
        "half": torch.full((2,), value, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }


def save(directory, *steps, **kwargs):
    checkpointer = Checkpointer(directory, **kwargs)
    for step in steps:
        checkpointer.save(step, tensors(float(step)), {"epoch": 0}, files={"pipeline.config": "x: 1"})
    return checkpointer


def test_what_goes_in_comes_out(tmp_path):
    found = save(tmp_path, 3).latest()
    assert found.step == 3
    assert found.info == {"epoch": 0, "step": 3}
    wanted = tensors(3.0)
    assert found.shapes == {n: tuple(t.shape) for n, t in wanted.items()}
    into = {n: torch.zeros_like(t) for n, t in wanted.items()}
    found.load(into)
    assert all(torch.equal(into[n], wanted[n]) for n in wanted)
    assert torch.equal(found.read(prefix="optimizer/")["w/step"], torch.tensor(3.0))
    assert (found.path / "pipeline.config").read_text() == "x: 1"
    assert not list(tmp_path.glob(".*"))


def test_the_last_n_and_the_best_are_kept(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=2)
    for step in range(1, 6):
        checkpointer.save(step, tensors(), {}, keep_also=[2] if step > 1 else [])
    assert checkpointer.steps() == [2, 4, 5]


def test_a_started_one_is_not_there_and_is_cleaned_up(tmp_path):
    checkpointer = save(tmp_path, 1)
    (tmp_path / ".writing-step-2").mkdir()
    (tmp_path / ".writing-step-2" / "__0_0.distcp").write_bytes(b"half")
    assert checkpointer.latest().step == 1
    save(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == ["step-1", "step-3"]


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "how", "message"),
    [
        ("__0_0.distcp", damage_flip, "__0_0.distcp is damaged"),
        ("__0_0.distcp", lambda p: p.write_bytes(p.read_bytes()[:-5]), "__0_0.distcp has .* bytes"),
        (".metadata", damage_flip, ".metadata is damaged"),
        ("state.json", lambda p: p.unlink(), "state.json is missing"),
        ("manifest.json", lambda p: p.write_text("{"), "manifest.json cannot be read"),
        ("manifest.json", lambda p: p.unlink(), "manifest.json is missing"),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, file, how, message, caplog):
    checkpointer = save(tmp_path, 1, 2)
    how(tmp_path / "step-2" / file)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(tmp_path / "step-2").verify()
    assert checkpointer.latest().step == 1
    assert "step-2 refused" in caplog.text
    # it is written again when the run comes there again
    checkpointer.save(2, tensors(2.0), {})
    assert checkpointer.latest().step == 2


def test_when_all_are_damaged_nothing_starts_anew_by_itself(tmp_path):
    checkpointer = save(tmp_path, 1)
    damage_flip(tmp_path / "step-1" / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        checkpointer.latest()


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    save(tmp_path, 1)
    proof = tmp_path / "proof"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    (tmp_path / "step-1" / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"refers to (posix|nt)\.mkdir"):
        Checkpoint(tmp_path / "step-1").shapes
    with pytest.raises(CheckpointError, match="refers to"):
        Checkpoint(tmp_path / "step-1").load({"model/w": torch.zeros(3, 4)})
    assert not proof.exists()


def test_members_of_enums_are_read_in_the_form_of_every_python(tmp_path):
    # Python 3.11.0 to 3.11.3 write them as getattr(class, name).
    class Old:
        def __init__(self, *what):
            self.what = what

        def __reduce__(self):
            return getattr, self.what

    encoding = _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT
    read = safe_dcp._Unpickler(io.BytesIO(pickle.dumps(Old(_MEM_FORMAT_ENCODING, encoding.name)))).load()
    assert read is encoding
    for what in ((_MEM_FORMAT_ENCODING, "__class__"), (torch.Size, "__init__")):
        with pytest.raises(safe_dcp.UnsafeCheckpoint, match="only a memory format"):
            safe_dcp._Unpickler(io.BytesIO(pickle.dumps(Old(*what)))).load()


def test_entries_that_are_no_tensors_are_refused(tmp_path):
    import torch.distributed.checkpoint as dcp

    state = {"x": {"a": object}, "w": torch.zeros(1)}
    with warnings.catch_warnings():  # torch's word on saving alone, unless a test before made a process group
        warnings.simplefilter("ignore")
        dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / "c"), no_dist=True)
    with pytest.raises(CheckpointError, match=r"BytesStorageMetadata|is no tensor"):
        Checkpoint(tmp_path / "c").shapes


def test_file_names_that_lead_elsewhere_are_refused(tmp_path):
    save(tmp_path, 1)
    path = tmp_path / "step-1" / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = "../secret"
    path.write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="leads out of the checkpoint"):
        Checkpoint(tmp_path / "step-1").shapes


def test_find_checkpoint_takes_a_step_a_folder_or_a_model_dir(tmp_path):
    save(tmp_path / "checkpoints", 1, 2)
    assert find_checkpoint(tmp_path).step == 2
    assert find_checkpoint(tmp_path / "checkpoints").step == 2
    assert find_checkpoint(tmp_path / "checkpoints" / "step-1").step == 1
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        find_checkpoint(tmp_path / "elsewhere")


def test_state_is_plain_json(tmp_path):
    save(tmp_path, 1)
    assert json.loads((tmp_path / "step-1" / "state.json").read_text())["step"] == 1
    assert "__0_0.distcp" in json.loads((tmp_path / "step-1" / "manifest.json").read_text())["files"]
