"""Tri-BCE: the loss of the mean logit, and of each branch as far as it is worse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rec.config.errors import ConfigError
from rec.losses.base import LOSSES, Loss, LossSum, upcast, weighted
from rec.losses.bce import bce, smoothing_of
from rec.protos import loss_pb2 as pb

# The names under which DCNv3 returns its two branches.
BRANCHES = ("logits_deep", "logits_shallow")


@LOSSES.register(pb.TriBCE)
class TriBCE(Loss):
    """L + w_D L_D + w_S L_S with w = max(0, L_branch - L), all means over the batch.

    Li et al., "DCNv3 / FCN", arXiv:2407.13349, Eq. 11-13. The weights are not detached, as in the
    authors' code, unless `detach_aux_weights`. They depend on the batch mean, so with gradient
    accumulation or several processes they are those of each micro-batch, not of the whole.
    """

    def __init__(self, config: pb.TriBCE) -> None:
        self._config = config
        self.branches = tuple(config.branches) or BRANCHES
        self.detach = config.detach_aux_weights
        self.label_smoothing = smoothing_of(config)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return bce(logits, labels, label_smoothing=self.label_smoothing)

    def sums(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, *, predictions: Mapping[str, Tensor]
    ) -> LossSum:
        main = weighted(self(upcast(logits), labels), weights)
        mean = main.mean()
        total = mean
        for name in self.branches:
            if name not in predictions:
                raise ConfigError(
                    f'the model returns no "{name}" for tri_bce; it returns: {", ".join(sorted(predictions))}',
                    self._config,
                    "branches",
                    hint="name the branch logits of the model, or use binary_cross_entropy",
                )
            branch = weighted(self(upcast(predictions[name]), labels), weights).mean()
            excess = torch.relu(branch - mean)
            total = total + (excess.detach() if self.detach else excess) * branch
        # Times the weights' sum: the trainer divides by it (summed over ranks), as for any other loss.
        return LossSum(total * main.denominator, main.denominator)
