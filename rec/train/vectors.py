"""Vectors of users or items alone, by the trained network as it is: fused, sharded or on a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from rec.data.batch import Batch
from rec.data.encoder import BadRows, Encoder
from rec.features.towers import tower_features

if TYPE_CHECKING:
    from rec.data.item_file import Items
    from rec.features.base import Feature
    from rec.network import Network
    from rec.protos import model_pb2

ROWS = 8192


class TowerVectors:
    """One tower of a retrieval network by itself: the other one gets a batch of no rows.

    Args:
        network: trained; comes back in the mode it was in.
        features: all features of the job.
        model_config: of a model with two towers.
        side: "user" or "item".
        device: where the network is.
    """

    def __init__(
        self,
        network: Network,
        features: Sequence[Feature],
        model_config: model_pb2.ModelConfig,
        side: str,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network, self.device = network, device
        self.output = f"{side}_embedding"
        self.encoder = Encoder(tower_features(features, model_config, side))
        other = tower_features(features, model_config, "item" if side == "user" else "user")
        self._nothing = {name: tensor for f in other for name, tensor in no_rows(f).items()}

    def __call__(self, rows: pa.RecordBatch) -> Tensor:
        """Vectors [rows, D], or interests [rows, K, D], float32 on the network's device, of raw rows with its columns.

        Raises:
            BadRows: rows that cannot be encoded.
        """
        features = Batch.from_arrays(self.encoder.encode(rows)).to(self.device).features
        nothing = {name: tensor.to(self.device) for name, tensor in self._nothing.items()}
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                return self.network(nothing | features)[self.output].float()
        finally:
            self.network.train(was_training)

    def of_items(self, items: Iterable[Items]) -> Iterator[tuple[pa.Array, Tensor]]:
        """(ids, vectors [n, D]) of all items of a file, in pieces, as `rec.data.item_file.ItemFile.items` reads them.

        Raises:
            DataError: an item that cannot be encoded, with its file and row.
        """
        for piece in items:
            for start in range(0, len(piece.ids), ROWS):
                try:
                    yield piece.ids.slice(start, ROWS), self(piece.rows.slice(start, ROWS))
                except BadRows as err:
                    worst = err.first
                    raise piece.place.error(start + worst.row, str(worst).strip(), worst.column) from err


def no_rows(feature: Feature) -> dict[str, Tensor]:
    """The tensors of a feature for a batch without rows."""
    tensors = {name: torch.zeros(0, dtype=getattr(torch, dtype)) for name, dtype in feature.tensors().items()}
    values = f"{feature.name}.values"
    if values in tensors and feature.table is None:
        tensors[values] = torch.zeros(0, feature.value_dim)
    return tensors
