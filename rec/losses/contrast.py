"""Scores of rows against their positives and negatives, for the losses and metrics of retrieval models."""

from __future__ import annotations

# B rows, N sampled and H hard negatives, C shared candidates (B + N or N), K - 1 most hard negatives of a row, D width,
# I interests of a user
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.ops.sampled_softmax import negative_logits

if TYPE_CHECKING:
    from rec.data.batch import Batch


@dataclass(frozen=True)
class Contrast:
    """What the rows of a batch are compared with.

    Attributes:
        own_BK: logits that only the row has: its positive, then its hard negatives (-inf for none).
        user_BD: users, divided by the temperature; with several interests [B, I, D], of which the nearest one scores.
        shared_CD: candidates of all rows.
        row_P, column_P: (row, shared candidate) pairs that are no negatives of the row.
        log_count_C: log of how often each is expected among the candidates; None for no correction.
    """

    own_BK: Tensor
    user_BD: Tensor
    shared_CD: Tensor
    row_P: Tensor
    column_P: Tensor
    log_count_C: Tensor | None = None

    @property
    def positive_B(self) -> Tensor:
        """Logits of the positives."""
        return self.own_BK[:, 0]

    @cached_property
    def negatives(self) -> Tensor:
        """Uncorrected logits of all negatives, [B, C + K - 1], -inf for what is none."""
        shared_BC = self._shared(None)
        return torch.cat([shared_BC, self.own_BK[:, 1:]], dim=1) if self.own_BK.shape[1] > 1 else shared_BC

    @property
    def several_interests(self) -> bool:
        """Whether users have several vectors."""
        return self.user_BD.dim() == 3

    @property
    def corrected(self) -> Tensor:
        """Logits of the positive and of all negatives, those of shared ones corrected: [B, K + C]."""
        return torch.cat([self.own_BK, self._shared(self.log_count_C)], dim=1)

    def _shared(self, offset_C: Tensor | None) -> Tensor:
        if not self.several_interests:
            return negative_logits(self.user_BD, self.shared_CD, offset_C, self.row_P, self.column_P)
        logits_BC = nearest(self.user_BD, self.shared_CD)
        logits_BC = logits_BC if offset_C is None else logits_BC - offset_C
        return logits_BC.index_put((self.row_P, self.column_P), logits_BC.new_tensor(float("-inf")))

    @cached_property
    def num_negatives_B(self) -> Tensor:
        """How many negatives each row has, float."""
        return (self.negatives > float("-inf")).sum(dim=1).to(self.own_BK.dtype)

    def ranks(self) -> Tensor:
        """Place of the positive among its candidates, from 1; one that scores as a negative does stands behind it."""
        return 1 + (self.negatives >= self.positive_B[:, None]).sum(dim=1)


def nearest(users: Tensor, items_CD: Tensor) -> Tensor:
    """Inner products of users with all items, [B, C].

    Args:
        users: [B, D], or [B, I, D]: then the largest over the interests.
        items_CD: items.
    """
    return (users @ items_CD.t()).amax(dim=1) if users.dim() == 3 else users @ items_CD.t()


def nearest_of_pairs(users: Tensor, items_PD: Tensor) -> Tensor:
    """Inner products of users [P, D] or [P, I, D] with an item each, the largest over the interests: [P]."""
    if users.dim() == 3:
        return torch.bmm(users, items_PD.unsqueeze(2)).squeeze(2).amax(dim=1)
    return (users * items_PD).sum(dim=1)


@dataclass(frozen=True)
class Pairs:
    """A batch of a retrieval model, for its losses.

    Attributes:
        predictions: what the model returned: `user_embedding` [B, D], or [B, I, D] with several interests;
            `item_embedding` [B + N + H, D], and more.
        batch: with its `candidates`.
        weights: [B], or None for 1 each.
        in_batch: whether the rows' own items are candidates of all rows.
        most_hard: most hard negatives of a row.
        temperature: of the model.
        normalised: whether the model's vectors have length 1.
    """

    predictions: Mapping[str, Tensor]
    batch: Batch
    weights: Tensor | None
    in_batch: bool
    most_hard: int
    temperature: float
    normalised: bool

    @property
    def user(self) -> Tensor:
        """Users [B, D], or [B, I, D], float32."""
        return self.predictions["user_embedding"].float()

    @property
    def items(self) -> Tensor:
        """Items [B + N + H, D], float32: the rows' own first."""
        return self.predictions["item_embedding"].float()

    @cached_property
    def contrast(self) -> Contrast:
        """Scores by the model's own similarity and temperature."""
        return self.scored(self.user, self.items, self.temperature)

    def cosines(self, temperature: float) -> Contrast:
        """Scores by cosine, whatever the model's similarity is."""
        user, items = (x if self.normalised else F.normalize(x, dim=-1) for x in (self.user, self.items))
        return self.scored(user, items, temperature)

    def scored(self, user_BD: Tensor, items_MD: Tensor, temperature: float) -> Contrast:
        """Scores of some vectors in place of the model's.

        Args:
            user_BD: rows, or their interests [B, I, D].
            items_MD: the rows' own items, sampled and hard ones.
            temperature: logits are inner products divided by it.
        """
        found = self.batch.candidates
        rows = user_BD.shape[0]
        # fp32 and divided before the product: a bf16 cosine / 0.03 is wrong by 0.1.
        user_BD = user_BD / temperature
        own_B1 = nearest_of_pairs(user_BD, items_MD[:rows]).unsqueeze(1)
        hard = found.get("hard")
        shared = items_MD if hard is None else items_MD[: items_MD.shape[0] - hard.shape[1]]
        if hard is not None:
            scores_H = nearest_of_pairs(user_BD[hard[0]], items_MD[shared.shape[0] :])
            hard_BK = own_B1.new_full((rows, self.most_hard), float("-inf"))
            own_B1 = torch.cat([own_B1, hard_BK.index_put((hard[0], hard[1]), scores_H)], dim=1)
        masked = found["masked"]
        return Contrast(
            own_BK=own_B1,
            user_BD=user_BD,
            shared_CD=shared if self.in_batch else shared[rows:],
            row_P=masked[0],
            column_P=masked[1],
            log_count_C=found.get("log_count"),
        )
