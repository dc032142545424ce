"""DLRM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.models.base import MODELS, Head, Model, fields_of, flat_group, main_group, mlp_of
from rec.ops.dot_interaction import dot_interaction, pair_index
from rec.protos.models import dlrm_pb2 as pb

if TYPE_CHECKING:
    from rec.embedding.shapes import GroupShapes


@MODELS.register(pb.DLRM)
class DLRM(Model):
    """Naumov et al., "Deep Learning Recommendation Model ...", 2019, arXiv:1906.00091, Sec. 2.2.

    Dots of all pairs of {bottom MLP of "dense", fields of "sparse"}, beside the bottom MLP's output
    and (`arch_with_sparse`) the fields themselves, into the top MLP. A single group of any name is
    taken as "sparse".
    """

    pairs: Tensor

    def __init__(self, config: pb.DLRM, groups: GroupShapes, *, num_class: int = 1) -> None:
        super().__init__()
        sparse = main_group(groups, "sparse", config)
        self.sparse_group = sparse.name
        self.num_vectors, self.field_width = fields_of(sparse, config)
        self.with_sparse = config.arch_with_sparse
        self.bottom = None
        width = sparse.width if self.with_sparse else 0
        if len(groups) > 1 and "dense" in groups:
            if not config.HasField("dense_mlp"):
                raise ConfigError('group "dense" needs an MLP', config, hint="set dense_mlp { hidden_units: [...] }")
            self.bottom = mlp_of(config.dense_mlp, flat_group(groups, "dense", config).width)
            if self.bottom.out_features != self.field_width:
                raise ConfigError(
                    f"dense_mlp ends with {self.bottom.out_features} units, "
                    f'the features of group "{sparse.name}" are {self.field_width} wide',
                    config.dense_mlp,
                    "hidden_units",
                    hint=f"end hidden_units with {self.field_width}",
                )
            width += self.field_width
            self.num_vectors += 1
        elif config.HasField("dense_mlp"):
            raise ConfigError('dense_mlp is set, but there is no group "dense" beside "sparse"', config, "dense_mlp")
        # Not a weight: kept out of checkpoints.
        self.register_buffer("pairs", pair_index(self.num_vectors), persistent=False)
        self.top = mlp_of(config.final, width + self.pairs.numel())
        self.head = Head(self.top.out_features, num_class=num_class)

    def forward(self, groups: dict[str, Tensor]) -> dict[str, Tensor]:
        """Groups to "logits"."""
        vectors = beside = groups[self.sparse_group]
        if self.bottom is not None:
            dense = self.bottom(groups["dense"])
            vectors = torch.cat([dense, vectors], dim=1)
            # `vectors` is what stands beside the dots already: no second concatenation of the fields.
            beside = vectors if self.with_sparse else dense
        dots = dot_interaction(vectors.reshape(-1, self.num_vectors, self.field_width), self.pairs)
        if self.with_sparse or self.bottom is not None:
            dots = torch.cat([dots, beside], dim=1)
        return {"logits": self.head(self.top(dots))}
