"""Losses of retrieval models: a positive against negatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.config.errors import ConfigError
from rec.config.registry import Registry
from rec.losses.base import LossSum, weighted
from rec.losses.contrast import Contrast, Pairs
from rec.ops.sampled_softmax import sampled_softmax_sum
from rec.protos import loss_pb2 as pb

RETRIEVAL_LOSSES = Registry("retrieval loss", "rec.losses")


class RetrievalLoss(ABC):
    """A loss of a retrieval task.

    Attributes:
        reads_negatives: whether it compares positives with negatives.
        corrects: whether it subtracts how often negatives are expected (logQ).
    """

    reads_negatives: ClassVar[bool] = True
    corrects: ClassVar[bool] = False

    @abstractmethod
    def sums(self, pairs: Pairs) -> LossSum:
        """Weighted sum of the rows' losses."""


class ContrastLoss(RetrievalLoss):
    """A loss that is a value per row of the model's scores, without correction for how negatives were drawn."""

    @abstractmethod
    def __call__(self, contrast: Contrast) -> Tensor:
        """Loss of each row, [B]; a negative of -inf is none."""

    def sums(self, pairs: Pairs) -> LossSum:
        return weighted(self(pairs.contrast), pairs.weights)


def softmax_sums(contrast: Contrast, weights: Tensor | None) -> LossSum:
    """-log softmax at the positive, among it and its negatives, with log expected counts subtracted from those.

    Bengio & Senécal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model",
    2008: with log(n q) subtracted the sum over n negatives drawn with probability q estimates that over the
    catalogue. The positive is not drawn, so it is not corrected ("Correcting the LogQ Correction", arXiv:2507.09331).
    """
    rows = contrast.own_BK.shape[0]
    weight_B = contrast.own_BK.new_ones(rows) if weights is None else weights.to(contrast.own_BK.dtype)
    if contrast.several_interests:
        # The largest of several products: in evaluations only, where the matrix of logits is made for the ranks anyway.
        losses_B = torch.logsumexp(contrast.corrected, dim=1) - contrast.positive_B
        return LossSum((weight_B * losses_B).sum(), weight_B.sum().detach())
    total = sampled_softmax_sum(
        contrast.own_BK,
        contrast.user_BD,
        contrast.shared_CD,
        contrast.log_count,
        contrast.row_P,
        contrast.column_P,
        weight_B,
        contrast.past_MD,
    )
    return LossSum(total, weight_B.sum().detach())


@RETRIEVAL_LOSSES.register(pb.SoftmaxCrossEntropy)
class SampledSoftmax(RetrievalLoss):
    """Softmax cross-entropy over the candidates, with the model's similarity and temperature."""

    corrects = True

    def __init__(self, config: pb.SoftmaxCrossEntropy) -> None:
        if config.label_smoothing:
            raise ConfigError(
                "label_smoothing of a retrieval model would pull towards a few drawn negatives",
                config,
                "label_smoothing",
                hint="leave it out",
            )

    def sums(self, pairs: Pairs) -> LossSum:
        return softmax_sums(pairs.contrast, pairs.weights)


@RETRIEVAL_LOSSES.register(pb.InfoNCE)
class InfoNCE(RetrievalLoss):
    """Softmax cross-entropy of cosines.

    van den Oord et al., "Representation Learning with Contrastive Predictive Coding", arXiv:1807.03748, Eq. 4.
    """

    corrects = True

    def __init__(self, config: pb.InfoNCE) -> None:
        if not config.temperature > 0:
            raise ConfigError(f"temperature is {config.temperature:g}, expected > 0", config, "temperature")
        self.temperature = config.temperature

    def sums(self, pairs: Pairs) -> LossSum:
        return softmax_sums(pairs.cosines(self.temperature), pairs.weights)


@RETRIEVAL_LOSSES.register(pb.BinaryCrossEntropy)
class SampledBCE(ContrastLoss):
    """Binary cross-entropy, mean over the positive and its negatives."""

    def __init__(self, config: pb.BinaryCrossEntropy) -> None:
        if config.label_smoothing:
            raise ConfigError("label_smoothing has no effect on a retrieval model", config, "label_smoothing")

    def __call__(self, contrast: Contrast) -> Tensor:
        return binary(contrast)


@RETRIEVAL_LOSSES.register(pb.GBCELoss)
class GBCE(ContrastLoss):
    """Binary cross-entropy with sigmoid(s)^beta for the positive.

    Petrov & Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
    Sampling", RecSys 2023, arXiv:2308.07192, Eq. 14 and 18.
    """

    def __init__(self, config: pb.GBCELoss) -> None:
        if config.num_items < 2:
            raise ConfigError(
                f"num_items is {config.num_items}, expected the size of the catalogue", config, "num_items"
            )
        if not 0 <= config.calibration <= 1:
            raise ConfigError(f"calibration is {config.calibration:g}, expected within [0, 1]", config, "calibration")
        self.num_items, self.calibration = config.num_items, config.calibration

    def __call__(self, contrast: Contrast) -> Tensor:
        rate = (contrast.num_negatives_B / (self.num_items - 1)).clamp(min=1 / self.num_items, max=1)
        return binary(contrast, beta_B=rate * (self.calibration * (1 - 1 / rate) + 1 / rate))


def binary(contrast: Contrast, beta_B: Tensor | None = None) -> Tensor:
    """(-beta log sigmoid(s+) - sum_j log sigmoid(-s_j)) / (1 + n), [B]. log(sigmoid^beta) is beta log sigmoid."""
    positive = -F.logsigmoid(contrast.positive_B)
    positive = positive if beta_B is None else beta_B * positive
    return (positive + F.softplus(contrast.negatives).sum(dim=1)) / (1 + contrast.num_negatives_B)


@RETRIEVAL_LOSSES.register(pb.BPRLoss)
class BPR(ContrastLoss):
    """-log sigmoid(s+ - s_j), mean over the negatives; 0 for a row without any.

    Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, section 4.1.
    """

    def __init__(self, config: pb.BPRLoss) -> None:
        pass

    def __call__(self, contrast: Contrast) -> Tensor:
        margins = F.softplus(contrast.negatives - contrast.positive_B[:, None])
        return margins.sum(dim=1) / contrast.num_negatives_B.clamp(min=1)


@RETRIEVAL_LOSSES.register(pb.AMMLoss)
class AMM(RetrievalLoss):
    """Adaptive mimic mechanism: augmented vectors follow what their positives' other tower says.

    Yu et al., "A Dual Augmented Two-tower Model for Online Large-scale Recommendation", DLP-KDD 2021, Eq. 5 and 6, of
    which the pairs of negatives are 0. Mean over the positives, where the paper divides by all pairs.
    """

    reads_negatives = False

    def __init__(self, config: pb.AMMLoss) -> None:
        self._config = config
        for name in ("user_weight", "item_weight"):
            if not getattr(config, name) >= 0:
                raise ConfigError(f"{name} is {getattr(config, name):g}, expected >= 0", config, name)
        self.user_weight, self.item_weight = config.user_weight, config.item_weight

    def sums(self, pairs: Pairs) -> LossSum:
        rows = pairs.user.shape[0]
        user = self._augmented(pairs, "user_augmented")
        item = self._augmented(pairs, "item_augmented")[:rows]
        return weighted(
            self.user_weight * _squares(user, pairs.items[:rows].detach())
            + self.item_weight * _squares(item, pairs.user.detach()),
            pairs.weights,
        )

    def _augmented(self, pairs: Pairs, name: str) -> Tensor:
        if name not in pairs.predictions:
            raise ConfigError(
                f'the model returns no "{name}" for amm_loss; it returns: {", ".join(sorted(pairs.predictions))}',
                self._config,
                hint="use dat, or a model that returns augmented vectors",
            )
        vectors = pairs.predictions[name].float()
        return F.normalize(vectors, dim=1) if pairs.normalised else vectors


def _squares(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    return (a_BD - b_BD).square().sum(dim=1)


@RETRIEVAL_LOSSES.register(pb.CategoryAlignmentLoss)
class CategoryAlignment(RetrievalLoss):
    """Sum over categories of |C_major - C_category|_F^2, C the covariance of the rows' item vectors.

    Yu et al., DLP-KDD 2021, Eq. 8. Categories of one row have no covariance and are left out, and so are rows of
    weight 0; weights count in no other way.
    """

    reads_negatives = False

    def __init__(self, config: pb.CategoryAlignmentLoss) -> None:
        if not config.weight >= 0:
            raise ConfigError(f"weight is {config.weight:g}, expected >= 0", config, "weight")
        self.key, self.weight = config.grouping_key, config.weight

    def sums(self, pairs: Pairs) -> LossSum:
        items_BD, keys = pairs.items[: pairs.user.shape[0]], pairs.batch.keys[self.key]
        denominator = weighted(items_BD.new_ones(len(items_BD)), pairs.weights).denominator
        if pairs.weights is not None:
            items_BD, keys = items_BD[pairs.weights > 0], keys[pairs.weights > 0]
        return LossSum(self.weight * category_alignment(items_BD, keys) * denominator, denominator)


def category_alignment(items_BD: Tensor, keys_B: Tensor) -> Tensor:
    """Scalar of Eq. 8; 0 where fewer than two categories have two rows.

    Args:
        items_BD: item vectors.
        keys_B: category of each.
    """
    _, group_B, count_G = torch.unique(keys_B, return_inverse=True, return_counts=True)
    many_G = count_G > 1
    if int(many_G.sum()) < 2:
        return items_BD.sum() * 0.0
    groups, width = len(count_G), items_BD.shape[1]
    mean_GD = items_BD.new_zeros(groups, width).index_add(0, group_B, items_BD) / count_G[:, None]
    centred_BD = items_BD - mean_GD[group_B]
    products_BE = (centred_BD[:, :, None] * centred_BD[:, None, :]).reshape(len(items_BD), -1)
    sums_GE = items_BD.new_zeros(groups, width * width).index_add(0, group_B, products_BE)
    covariance_GE = sums_GE / (count_G - 1).clamp(min=1)[:, None]
    major = int(count_G.argmax())
    return (covariance_GE[many_G] - covariance_GE[major]).square().sum()
