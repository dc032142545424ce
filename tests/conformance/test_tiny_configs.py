"""configs/tiny: each is a whole, valid config of one model, checked up to the model's first answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rec.assemble import Job
from rec.config.load import load_config
from rec.models import MODELS
from rec.protos import model_pb2
from rec.world import World
from tests.tiny_data import overrides, place_items, write_tiny

FOLDER = Path(__file__).parents[2] / "configs/tiny"
CONFIGS = sorted(p for p in FOLDER.glob("*.config") if p.name != "data.config")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), train=512, evaluation=64)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def job(request: pytest.FixtureRequest, data: Path) -> Job:
    loaded = load_config(request.param, overrides(data))
    assert loaded.warnings == []
    place_items(loaded.config, data)
    return Job(loaded, World(), "cpu")


def test_every_model_has_a_tiny_config() -> None:
    fields = model_pb2.ModelConfig.DESCRIPTOR.oneofs_by_name["model"].fields
    registered = {message.DESCRIPTOR.full_name for message in MODELS.types()}
    written = {load_config(path).config.model_config.WhichOneof("model") for path in CONFIGS}
    assert written == {f.name for f in fields if f.message_type.full_name in registered}


def test_it_learns_and_every_parameter_gets_a_gradient(job: Job) -> None:
    # The plain backend: tables are parameters, too.
    network, tasks = job.network(backend="plain"), job.tasks()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    seen: set[str] = set()
    losses = []
    for epoch in range(3):
        total, batches = 0.0, 0
        for batch in job.train_loader().epoch(epoch):
            predictions = network(batch.features)
            sums = [loss for task in tasks for loss in task.loss(predictions, batch).values()]
            loss = sum(s.numerator / s.denominator for s in sums)
            optimizer.zero_grad()
            loss.backward()
            for name, parameter in network.named_parameters():
                if parameter.grad is not None and parameter.grad.abs().max() > 0:
                    assert torch.isfinite(parameter.grad).all(), name
                    seen.add(name)
            optimizer.step()
            total, batches = total + loss.item(), batches + 1
        losses.append(total / batches)
    assert seen == {name for name, _ in network.named_parameters()}
    assert losses[-1] < losses[0]
