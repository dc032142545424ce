"""A layer's keyword arguments and their defaults are its message's: one place decides a default."""

from __future__ import annotations

import inspect

import pytest
from google.protobuf.message import Message
from torch import nn

from rec.config.kwargs import kwargs_of
from rec.modules.capsules import B2ICapsule
from rec.modules.cross import CrossV2
from rec.modules.field_attention import FieldAttention
from rec.modules.gated_fusion import GatedFusion
from rec.modules.mamba import Mamba4RecLayers
from rec.modules.mask_net import MaskBlock
from rec.modules.mlp import MLP
from rec.modules.multimodal import AdaptiveFusion, BlockSettings, MulTFusion
from rec.protos import module_pb2 as pb
from rec.protos import multimodal_pb2

LAYERS: list[tuple[type[Message], type[nn.Module] | type[BlockSettings]]] = [
    (pb.MLP, MLP),
    (pb.CrossV2, CrossV2),
    (pb.FieldAttention, FieldAttention),
    (pb.MaskBlock, MaskBlock),
    (pb.GatedFusion, GatedFusion),
    (pb.Mamba4RecLayers, Mamba4RecLayers),
    (multimodal_pb2.TransformerBlocks, BlockSettings),
    (multimodal_pb2.AdaptiveFusion, AdaptiveFusion),
    (multimodal_pb2.MulTFusion, MulTFusion),
    (pb.B2ICapsule, B2ICapsule),
]


@pytest.mark.parametrize(("message", "layer"), LAYERS, ids=lambda x: x.__name__)
def test_keyword_arguments_and_defaults_are_the_messages(message: type[Message], layer: type) -> None:
    parameters = inspect.signature(layer).parameters.values()
    arguments = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    declared = kwargs_of(message())
    assert arguments.keys() == declared.keys()
    for name, default in arguments.items():
        if default is inspect.Parameter.empty:
            # Without a default in code: a field that must be set.
            assert not message.DESCRIPTOR.fields_by_name[name].has_default_value, name
        elif isinstance(declared[name], list):
            assert list(default) == declared[name], name
        else:
            assert default == declared[name], name
            assert type(default) is type(declared[name]), name
