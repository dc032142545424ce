"""Training with a cross-batch memory: every model, gradient steps, resumes to the bit, and what must not see it."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import pytest
import torch
from killing import differences

from rec.assemble import Job
from rec.config.load import load_config
from rec.data.batch import Batch
from rec.tasks import RetrievalTask
from rec.train.checkpoint import Checkpointer
from rec.train.trainer import Trainer
from rec.world import World
from tests.tiny_data import overrides, place_items, write_tiny

TINY = Path(__file__).parents[2] / "configs/tiny"
MEMORY = "model_config { retrieval { cross_batch_memory { size: 300 warmup_steps: 2 } } }"
EARLY = MEMORY.replace("warmup_steps: 2", "warmup_steps: 1")
MODELS = ["dssm", "dssm_v2", "dat", "youtube_dnn", "mind", "comirec_sa", "comirec_dr"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), train=600, evaluation=64)


def job(name: str, data: Path, *more: str) -> Job:
    settings = ["data_config { batch_size: 100 }", *more]
    loaded = load_config(TINY / f"{name}.config", [*overrides(data), *settings])
    place_items(loaded.config, data)
    return Job(loaded, World(), "cpu")


def trainer(made: Job, folder: Path) -> Trainer:
    config = made.config
    eval_loader = made.eval_loader(config.eval_input_path)
    return Trainer(
        made.network(),
        made.tasks(),
        config,
        model_dir=folder,
        train_loader=made.train_loader(),
        eval_loader=eval_loader,
    )


def task_of(made: Trainer) -> RetrievalTask:
    (task,) = made.tasks
    assert isinstance(task, RetrievalTask)
    return task


def batches(made: Job, count: int) -> list[Batch]:
    return [batch for batch, _ in zip(made.train_loader().epoch(0), range(count), strict=False)]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_compared_with_the_items_of_earlier_steps(name: str, data: Path, tmp_path: Path):
    losses, memory = {}, None
    for kept in ("", MEMORY):
        made = job(name, data, kept) if kept else job(name, data)
        trained = trainer(made, tmp_path / f"{bool(kept)}")
        step, memory = trained.step_fn, task_of(trained).memory
        losses[kept] = [float(step([batch], step=i + 1).loss) for i, batch in enumerate(batches(made, 3))]
    assert losses[""][:2] == losses[MEMORY][:2]  # warm-up
    # The correction keeps the sum over negatives where it was, so a softmax alone does not tell by how much.
    assert losses[""][2] != losses[MEMORY][2]
    entries = [tensor for name, tensor in memory.state().items() if name != "cursor"]
    assert memory.nbytes(trained.network.model.item_width) == sum(tensor.nbytes for tensor in entries)


@pytest.mark.parametrize(
    "loss", ["info_nce {}", "binary_cross_entropy {}", "gbce_loss { num_items: 200 }", "bpr_loss {}"]
)
def test_every_loss_is(loss: str, data: Path, tmp_path: Path):
    made = job("dssm", data, MEMORY, f"model_config {{ losses: [] losses {{ {loss} }} }}")
    trained = trainer(made, tmp_path)
    task, network = task_of(trained), trained.network
    first, second = batches(made, 2)
    task.remember(network(first.features), first)
    predictions = network(second.features)
    (warm,), (used,) = (task.training_loss(predictions, second, step=i).values() for i in (2, 3))
    assert used.mean() != warm.mean()
    assert torch.isfinite(used.mean())
    (plain,) = task.loss(predictions, second).values()
    assert torch.equal(plain.mean(), warm.mean())


RESUMES = {
    "accumulated in bf16": (
        "dssm",
        "data_config { batch_size: 50 } train_config { gradient_accumulation_steps: 2 mixed_precision: 'BF16' }",
    ),
    "sampled": ("mind", "model_config { mind { in_batch_negative: false } }"),
    "both": ("dat", "model_config { dat { in_batch_negative: true } retrieval { logq_correction: false } }"),
}


@pytest.mark.parametrize("case", RESUMES)
def test_a_killed_training_ends_with_the_same_bits(case: str, data: Path, tmp_path: Path):
    name, more = RESUMES[case]
    settings = [EARLY, "train_config { num_epochs: 1 save_checkpoints_steps: 2 }", *filter(None, [more])]
    trainer(job(name, data, *settings), tmp_path / "whole").train()
    broken = trainer(job(name, data, *settings), tmp_path / "broken")
    step_fn = broken.step_fn

    def dying(batches, *, step):
        if step == 4:
            raise KeyboardInterrupt
        return step_fn(batches, step=step)

    dying.scaler = None
    broken.step_fn = dying
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = trainer(job(name, data, *settings), tmp_path / "broken")
    resumed.train()
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    assert task_of(resumed).memory.filled == 300
    names = Checkpointer(tmp_path / "whole" / "checkpoints").latest().shapes
    found = sorted(name for name in names if "memory" in name)
    assert "rank0/tasks/cross_batch_memory/vectors" in found
    assert {name.rpartition("/")[0] for name in found} == {"rank0/tasks/cross_batch_memory"}


def test_a_checkpoint_without_a_memory_is_gone_on_from_with_an_empty_one(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    trainer(job("dssm", data, "train_config { num_epochs: 1 }"), tmp_path / "old").train()
    later = trainer(job("dssm", data, MEMORY, "train_config { num_epochs: 2 }"), tmp_path / "old")
    with caplog.at_level(logging.INFO):
        later._start()
    assert "cross_batch_memory begins empty: the checkpoint has none" in caplog.text
    assert (later.step, task_of(later).memory.filled) == (6, 0)
    later.train()
    assert task_of(later).memory.filled == 300
    # And the other way round, and with another size.
    for change, text in ((MEMORY.replace("300", "200"), "one of another size"), ("", "")):
        caplog.clear()
        other = trainer(job("dssm", data, *filter(None, [change])), tmp_path / "old")
        with caplog.at_level(logging.INFO):
            other._start()
        assert text in caplog.text
        assert task_of(other).memory is None or task_of(other).memory.filled == 0


def test_fine_tuning_begins_with_an_empty_memory(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    said = "cross_batch_memory begins empty: fine_tune_checkpoint gives weights only"
    trainer(job("dssm", data, MEMORY, "train_config { num_epochs: 1 }"), tmp_path / "first").train()
    for more in ((), (MEMORY,)):
        tuned = trainer(
            job("dssm", data, *more, f'train_config {{ fine_tune_checkpoint: "{tmp_path / "first"}" }}'),
            tmp_path / "second",
        )
        with caplog.at_level(logging.INFO):
            tuned._start()
        assert (said in caplog.text) == bool(more)
        assert tuned.step == 0
        assert task_of(tuned).memory is None or task_of(tuned).memory.filled == 0


def test_evaluations_do_not_see_it(data: Path, tmp_path: Path):
    metrics = trainer(job("dssm", data, MEMORY), tmp_path).train()
    plain = trainer(job("dssm", data), tmp_path)
    plain._start()
    assert plain.evaluate(plain.loaders["eval"]) == metrics


def test_a_training_that_ends_within_the_warm_up_is_told(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    long = "model_config { retrieval { cross_batch_memory { warmup_steps: 12 } } }"
    trainer(job("dssm", data, MEMORY, long, "train_config { num_epochs: 2 }"), tmp_path).train()
    assert "no effect: the training has 12 steps, all within its warmup_steps (12)" in caplog.text
    steps = "train_config { num_epochs: 0 num_steps: 12 }"
    (warning,) = job("dssm", data, MEMORY, long, steps).loaded.warnings
    assert "the training ends at step 12, within its warmup_steps (12); set fewer warmup_steps" in warning


def test_an_export_has_no_trace_of_it(data: Path, tmp_path: Path):
    from rec.export import Exporter

    made = job("dssm", data, MEMORY)
    trained, folder = trainer(made, tmp_path), tmp_path / "export"
    trained.step_fn(batches(made, 1), step=1)
    assert task_of(trained).memory.filled == 100
    rows = made.rows(made.config.eval_input_path, 16)
    Exporter(made.config, made.tasks(), directory=folder).export(trained.network.eval(), rows=rows, step=1)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in files if zipfile.is_zipfile(folder / name)]:
        with zipfile.ZipFile(folder / name) as parts:
            files |= {f"{name}/{part}": parts.read(part) for part in parts.namelist()}
    assert any(b"item_tower" in content for name, content in files.items() if "item/scripted_model.pt/" in name)
    found = {name.rpartition("/")[2] for name, content in files.items() if b"cross_batch" in content}
    assert found == {"pipeline.config"}
