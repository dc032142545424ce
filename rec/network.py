"""What is trained, saved and exported: the look-up of the embeddings, then the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from rec.embedding import EmbeddingGroup
    from rec.models import Model


class Network(nn.Module):
    """EmbeddingGroup + Model. Knows no labels, losses, files or devices.

    The two halves stay apart because they train differently: the tables are updated inside the
    backward pass by their own (sparse) optimizer, the model's weights by the dense one.
    """

    embedding: EmbeddingGroup
    model: Model

    def __init__(self, embedding: EmbeddingGroup, model: Model) -> None:
        super().__init__()
        self.embedding = embedding
        self.model = model

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predictions by name.

        Args:
            features: the flat tensors of `Batch.features` (`<feature>.values`, `.lengths`, ...).
        Returns:
            The model's named outputs, e.g. `logits` [B].
        """
        return self.model(self.embedding(features))
