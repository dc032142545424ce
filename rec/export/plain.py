"""The trained network without anything but PyTorch's own ops: what is traced."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rec.embedding.group import EmbeddingGroup
from rec.network import Network

if TYPE_CHECKING:
    from rec.features.base import Feature
    from rec.protos.pipeline_pb2 import EasyRecConfig


def plain_network(
    network: Network, tables: dict[str, Tensor], features: Sequence[Feature], config: EasyRecConfig
) -> Network:
    """A copy on the CPU, in float32 and eval mode, whose tables are plain parameters.

    Args:
        network: trained; its look-up may be fused, sharded or on a GPU.
        tables: all of its embedding weights, from `network.embedding.export_weights()`.
        features: as the network's.
        config: the whole config.
    """
    # On "meta" nothing is allocated or initialised: the weights come in next.
    embedding = EmbeddingGroup(list(features), config.model_config, backend="plain", device="meta")
    plain: Any = embedding.tables
    for name in plain.attributes.values():
        table = tables[f"tables.{name}"].detach().cpu()
        if table.untyped_storage().nbytes() != table.nbytes:
            table = table.clone(memory_format=torch.contiguous_format)  # a view would be saved with all it views
        setattr(embedding.tables, name, nn.Parameter(table, requires_grad=False))
    # All but the tables is plain already.
    for part in ("dense", "encoders"):
        setattr(embedding, part, copy.deepcopy(getattr(network.embedding, part)).to("cpu", torch.float32))
    model = copy.deepcopy(network.model).to("cpu", torch.float32)
    return Network(embedding, model).eval()
