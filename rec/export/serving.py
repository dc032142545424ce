"""The network with its tasks' outputs: what an export computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from rec.tasks import Task


class ServingModule(nn.Module):
    """From encoded features to served scores.

    Args:
        network: features -> predictions.
        tasks: what each prediction is served as.
        only: outputs to give; () gives all.
    """

    def __init__(self, network: nn.Module, tasks: Sequence[Task], *, only: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self._tasks, self._only = list(tasks), tuple(only)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scores by name (`probs`, `logits`, `y`, with `_<tower>`).

        Args:
            features: `<feature>.values`, `.lengths`, ... as `rec.data.encoder` makes them.

        Returns:
            [B] each, or [B, C] with several classes.
        """
        predictions = self.network(features)
        outputs: dict[str, Tensor] = {}
        for task in self._tasks:
            outputs |= task.outputs(predictions)
        return {name: outputs[name] for name in self._only} if self._only else outputs
