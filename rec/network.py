"""What is trained, saved and exported: the look-up of the embeddings, then the model."""

from __future__ import annotations

from torch import Tensor, nn


class Network(nn.Module):
    """EmbeddingGroup + Model. Knows no labels, losses, files or devices.

    The two halves stay apart because they train differently: the tables are updated inside the
    backward pass by their own (sparse) optimizer, the model's weights by the dense one.
    """

    def __init__(self, embedding: nn.Module, model: nn.Module) -> None:
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
