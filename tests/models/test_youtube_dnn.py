"""YouTubeDNN: by hand, its tables, empty histories, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from google.protobuf import text_format

from rec.assemble import Job
from rec.config.errors import ConfigError
from rec.config.load import load_config
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models.youtube_dnn import YouTubeDNN
from rec.protos.models import youtube_dnn_pb2 as pb
from rec.world import World
from tests.tiny_data import overrides, place_items, write_tiny

TINY = Path(__file__).parents[2] / "configs/tiny/youtube_dnn.config"
TOWERS = 'user_tower { input: "user" mlp { hidden_units: 3 } } item_tower { input: "item" }'


def built(text: str = "", item: int = 2) -> YouTubeDNN:
    groups = [GroupShape(name=n, type="DEEP", features=((n, w),)) for n, w in (("user", 2), ("item", item))]
    torch.manual_seed(0)
    return YouTubeDNN(text_format.Parse(TOWERS + text, pb.YouTubeDNN()), GroupShapes(groups))


def test_by_hand():
    model = built()
    hidden, output = model.user_tower.mlp.layers[0], model.user_tower.output
    hidden.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    hidden.bias.data.zero_()
    output.weight.data = torch.tensor([[1.0, 2.0, 9.0], [0.0, 1.0, 9.0]])
    output.bias.data = torch.tensor([0.5, -5.0])
    groups = {"user": torch.tensor([[1.0, 2.0]]), "item": torch.tensor([[3.0, -4.0], [0.0, 1.0]])}
    out = model(groups)
    # ReLU(1, 2, -1) = (1, 2, 0); W (1, 2, 0) + b = (5.5, -3)
    assert out["user_embedding"].tolist() == [[5.5, -3.0]]
    assert torch.equal(out["item_embedding"], groups["item"])  # the rows of the table as they are


def test_without_user_linear_the_last_hidden_layer_is_the_vector():
    model = built(" user_linear: false", item=3)
    out = model({"user": torch.randn(4, 2), "item": torch.randn(4, 3)})["user_embedding"]
    assert out.shape == (4, 3)
    assert (out >= 0).all()


def test_a_last_layer_of_another_width_is_refused():
    with pytest.raises(
        ConfigError, match="the user's vector is 3 wide, an item's 2; end the user's hidden_units with 2"
    ):
        built(" user_linear: false")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    data = write_tiny(tmp_path_factory.mktemp("tiny"), train=200, evaluation=64)
    loaded = load_config(TINY, overrides(data))
    place_items(loaded.config, data)
    return Job(loaded, World(), "cpu")


def test_steps_and_items_share_a_table_that_both_backends_look_up_alike(job: Job):
    plain, fused = job.network(backend="plain").embedding, job.network().embedding
    assert [name for name in fused.table_specs if "item" in name] == ["item"]
    for key, table in fused.export_weights().items():
        plain.tables.get_parameter(key.removeprefix("tables.")).data.copy_(table)
    batch = next(iter(job.train_loader().epoch(0)))
    ours, theirs = fused(batch.features), plain(batch.features)
    assert ours["user"].shape[0] == batch.size < ours["item"].shape[0] == batch.items
    for group, values in theirs.items():
        torch.testing.assert_close(ours[group], values, rtol=1e-6, atol=1e-7)  # sums in another order


def test_rows_without_history_differ_by_the_user_s_features_alone(job: Job):
    network = job.network(backend="plain").eval()
    batch = next(iter(job.predict_loader(job.config.eval_input_path).epoch(0)))
    history = batch.features["hist__item_id.lengths"]
    empty = history == 0
    assert 0 < empty.sum() < len(history)
    groups = network.embedding(batch.features)
    assert (groups["user"][empty, -8:] == 0).all()
    assert torch.isfinite(network(batch.features)["user_embedding"]).all()
