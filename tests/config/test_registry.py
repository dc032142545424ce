from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from google.protobuf.message import Message

from rec.config.errors import ConfigError
from rec.config.kwargs import kwargs_of
from rec.config.options import unsupported
from rec.config.registry import Registry, oneof
from rec.protos import (
    custom_pb2,
    data_pb2,
    feature_pb2,
    loss_pb2,
    metric_pb2,
    model_pb2,
    module_pb2,
    optimizer_pb2,
    seq_encoder_pb2,
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules, each registering a class, that notes its imports."""
    folder = tmp_path / "zoo_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from rec.config.registry import Registry\nREGISTRY = Registry('loss', 'zoo_of_tests')\n"
    )
    for name, message in (("l1", "L1Loss"), ("l2", "L2Loss")):
        (folder / f"{name}.py").write_text(
            "from zoo_of_tests import REGISTRY\nfrom rec.protos import loss_pb2\n"
            f"@REGISTRY.register(loss_pb2.{message})\nclass {message}:\n"
            "    def __init__(self, config, *args, **kw):\n        self.got = (config, args, kw)\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "zoo_of_tests"
    for module in [m for m in sys.modules if m.startswith("zoo_of_tests")]:
        del sys.modules[module]


def test_submodules_are_imported_at_the_first_look_up(package: str) -> None:
    registry = importlib.import_module(package).REGISTRY
    assert f"{package}.l1" not in sys.modules
    message = loss_pb2.L2Loss()
    built = registry.build(message, 1, b=2)
    assert built.got == (message, (1,), {"b": 2})
    assert f"{package}.l1" in sys.modules
    assert [t.DESCRIPTOR.name for t in registry.types()] == ["L1Loss", "L2Loss"]


def test_an_unregistered_message_lists_what_is_there(package: str) -> None:
    registry = importlib.import_module(package).REGISTRY
    with pytest.raises(ConfigError, match='no loss is built from message TriBCE; available: "L1Loss", "L2Loss"'):
        registry.build(loss_pb2.TriBCE())


def test_two_classes_for_one_message_are_refused(package: str) -> None:
    registry = importlib.import_module(package).REGISTRY
    registry.types()
    with pytest.raises(ValueError, match=r"already zoo_of_tests\.l1\.L1Loss"):
        registry.register(loss_pb2.L1Loss)(type("Other", (), {}))


def test_a_module_that_fails_to_import_fails_every_time(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "bad.py").write_text("raise RuntimeError('boom')\n")
    registry = importlib.import_module(package).REGISTRY
    for _ in range(2):
        with pytest.raises(RuntimeError, match="boom"):
            registry.types()


def test_a_custom_message_calls_the_users_class() -> None:
    custom = custom_pb2.Custom(class_path="fractions:Fraction")
    custom.kwargs.update({"numerator": 3, "denominator": 4})
    assert str(Registry("loss", "rec.config").build(custom)) == "3/4"


def test_a_message_with_a_custom_passes_itself_first() -> None:
    custom = custom_pb2.Custom(class_path="tests.config.texts:Recorder")
    custom.kwargs.update({"heads": 2})
    message = seq_encoder_pb2.CustomEncoder(input="g", custom=custom)
    built = Registry("encoder", "rec.config").build(message, 7)
    assert (built.args, built.kwargs) == ((message, 7), {"heads": 2})


def test_a_class_without_signature_is_called_all_the_same() -> None:
    custom = custom_pb2.Custom(class_path="types:SimpleNamespace")
    custom.kwargs.update({"a": 1})
    assert Registry("loss", "rec.config").build(custom).a == 1


def test_wrong_keyword_arguments_are_told_with_the_signature() -> None:
    custom = custom_pb2.Custom(class_path="fractions:Fraction")
    custom.kwargs.update({"numerater": 3})
    with pytest.raises(ConfigError, match="unexpected keyword argument 'numerater'; its signature is"):
        Registry("loss", "rec.config").build(custom)


def test_oneof_gives_the_member_or_lists_them() -> None:
    config = loss_pb2.LossConfig(l2_loss=loss_pb2.L2Loss())
    assert oneof(config, "loss") is config.l2_loss
    with pytest.raises(ConfigError, match='LossConfig sets no loss; set one of "binary_cross_entropy"') as e:
        oneof(loss_pb2.LossConfig(), "loss")
    assert "jrc_loss" not in str(e.value)  # not supported, so not proposed


class TestKwargs:
    def test_scalars_lists_and_defaults(self) -> None:
        mlp = module_pb2.MLP(hidden_units=[8, 4], dropout_ratio=[0.1])
        kwargs = kwargs_of(mlp)
        assert kwargs["hidden_units"] == [8, 4]
        assert kwargs["dropout_ratio"] == [0.1]
        assert kwargs["activation"] == "nn.ReLU"
        assert kwargs["bias"] is True

    def test_uint64_stays_a_number_and_doubles_are_exact(self) -> None:
        assert kwargs_of(feature_pb2.AutoDisEmbedding(num_channels=3))["temperature"] == 0.1
        assert kwargs_of(feature_pb2.ZeroCollisionHash(zch_size=2**40))["zch_size"] == 2**40

    def test_messages_and_excluded_fields_are_left_out(self) -> None:
        block = module_pb2.MaskNetModule(n_mask_blocks=2)
        assert set(kwargs_of(block)).isdisjoint({"mask_block", "top_mlp"})
        assert "n_mask_blocks" not in kwargs_of(block, "n_mask_blocks")

    def test_unsupported_fields_are_left_out(self) -> None:
        assert "sample_cost_field" not in kwargs_of(data_pb2.DataConfig())

    def test_enums_come_by_name(self) -> None:
        assert kwargs_of(optimizer_pb2.FusedRowWiseAdagradOptimizer())["weight_decay_mode"] == "NONE"


# Every oneof whose members are built by a registry. `sequence_feature` is taken apart by its reader.
RANKING = {"l2_loss", "jrc_loss", "binary_focal_loss", "l1_loss", "huber_loss", "tri_bce", "prediction_loss"}
RETRIEVAL = {"info_nce", "bpr_loss", "gbce_loss", "amm_loss", "category_alignment_loss"}
REGISTRIES = [
    ("rec.models", "MODELS", model_pb2.ModelConfig, "model", set()),
    ("rec.losses", "LOSSES", loss_pb2.LossConfig, "loss", RETRIEVAL),
    ("rec.losses.retrieval", "RETRIEVAL_LOSSES", loss_pb2.LossConfig, "loss", RANKING),
    ("rec.losses", "LOSSES", loss_pb2.LossConfig, "sid_loss", set()),
    ("rec.metrics", "METRICS", metric_pb2.MetricConfig, "metric", set()),
    ("rec.metrics", "METRICS", metric_pb2.TrainMetricConfig, "metric", set()),
    ("rec.features.base", "FEATURES", feature_pb2.FeatureConfig, "feature", {"sequence_feature"}),
    ("rec.features.base", "FEATURES", feature_pb2.SeqFeatureConfig, "feature", set()),
    ("rec.embedding.encoders.base", "ENCODERS", seq_encoder_pb2.SeqEncoderConfig, "seq_module", set()),
]


@pytest.mark.parametrize(
    ("module", "name", "message", "group", "apart"),
    REGISTRIES,
    ids=[f"{name}-{message.__name__}-{group}" for _, name, message, group, _ in REGISTRIES],
)
def test_every_member_is_registered_or_marked_unsupported(
    module: str, name: str, message: type[Message], group: str, apart: set[str]
) -> None:
    registry: Registry = getattr(importlib.import_module(module), name)
    registered = {t.DESCRIPTOR.full_name for t in registry.types()}
    for field in message.DESCRIPTOR.oneofs_by_name[group].fields:
        custom = field.message_type.full_name == "rec.Custom" or "custom" in field.message_type.fields_by_name
        if field.name in apart or custom:
            continue
        built = field.message_type.full_name in registered
        assert built != bool(unsupported(field)), f"{message.__name__}.{field.name}: " + (
            "remove its (unsupported) option" if built else "register it, or mark it"
        )
