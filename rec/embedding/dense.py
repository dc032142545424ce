"""Embeddings of dense values: AutoDis, a linear map, and both behind one module."""

# B rows, n features, C channels, V width of the values, D embedding width
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rec.config.errors import ConfigError
from rec.embedding.names import attribute_names
from rec.embedding.plan import DenseModule
from rec.modules.linear import Linear
from rec.protos import feature_pb2


class AutoDis(nn.Module):
    """Automatic discretisation of one number: a softmax over channels mixes that many meta-embeddings.

    Guo et al., "An Embedding Learning Framework for Numerical Features in CTR Prediction", KDD 2021,
    arXiv:2012.08986, Eq. 4-7.

    Args:
        width: embedding width D.
        num_channels: number of meta-embeddings C.
        temperature: of the softmax.
        keep_prob: share alpha of the first layer that passes by the second.
    """

    def __init__(self, width: int, *, num_channels: int, temperature: float, keep_prob: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.keep_prob = keep_prob
        self.expand = nn.Parameter(torch.empty(1, num_channels))
        self.mix = nn.Parameter(torch.empty(num_channels, num_channels))
        self.meta = nn.Parameter(torch.empty(num_channels, width))
        nn.init.xavier_normal_(self.expand)
        nn.init.xavier_normal_(self.mix)
        nn.init.normal_(self.meta, std=0.01)
        self.activation = nn.LeakyReLU()

    def forward(self, values_B1: Tensor) -> Tensor:
        """Embed.

        Args:
            values_B1: normalised values, [B, 1].

        Returns:
            [B, D]
        """
        hidden_BC = self.activation(values_B1 @ self.expand)
        mixed_BC = hidden_BC @ self.mix + self.keep_prob * hidden_BC
        return torch.softmax(mixed_BC / self.temperature, dim=-1) @ self.meta


class DenseEmbeddings(nn.Module):
    """All dense embeddings of a job, each computed once a step.

    Args:
        modules: what to build, by key.
    """

    def __init__(self, modules: Mapping[str, DenseModule]) -> None:
        super().__init__()
        self.inputs = {key: f"{module.feature}.values" for key, module in modules.items()}
        self.names = attribute_names(modules)
        self.layers = nn.ModuleDict({self.names[key]: _build(module) for key, module in modules.items()})

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings [B, width] (of a sequence: [sum L, width]) by key."""
        return {key: self.layers[name](features[self.inputs[key]]) for key, name in self.names.items()}


def _build(module: DenseModule) -> nn.Module:
    config = module.config
    if config is None or isinstance(config, feature_pb2.MLPEmbedding):
        # No bias: zero is no information. TorchEasyRec's `mlp {}` is this map too.
        return Linear(module.value_dim, module.width, bias=False)
    if module.value_dim != 1:
        raise ConfigError(
            f'feature "{module.feature}" has autodis and value_dim {module.value_dim}',
            config,
            hint="autodis takes one number; use mlp {} for a vector",
        )
    return AutoDis(
        module.width,
        num_channels=config.num_channels,
        temperature=config.temperature,
        keep_prob=config.keep_prob,
    )
