"""Scores of rows against their positives and negatives, for the losses and metrics of retrieval models."""

from __future__ import annotations

# B rows, N sampled and H hard negatives, C shared candidates (B + N or N), M items of earlier steps, K - 1 most hard
# negatives of a row, D width, I interests of a user
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rec.losses.memory import Remembered, scale_gradient
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
        row_P, column_P: (row, candidate) pairs that are no negatives of the row; those of earlier steps are counted on
            behind the shared ones.
        log_count: log of how often each is expected among the candidates times the strength of the correction, [C + M];
            None for no correction.
        past_MD: candidates of all rows from earlier steps, without a gradient; None without a memory.
    """

    own_BK: Tensor
    user_BD: Tensor
    shared_CD: Tensor
    row_P: Tensor
    column_P: Tensor
    log_count: Tensor | None = None
    past_MD: Tensor | None = None

    @property
    def positive_B(self) -> Tensor:
        """Logits of the positives."""
        return self.own_BK[:, 0]

    @cached_property
    def negatives(self) -> Tensor:
        """Uncorrected logits of all negatives, [B, C + M + K - 1], -inf for what is none."""
        shared = self._shared(None)
        return torch.cat([shared, self.own_BK[:, 1:]], dim=1) if self.own_BK.shape[1] > 1 else shared

    @property
    def several_interests(self) -> bool:
        """Whether users have several vectors."""
        return self.user_BD.dim() == 3

    @property
    def corrected(self) -> Tensor:
        """Logits of the positive and of all negatives, those of shared ones corrected: [B, K + C + M]."""
        return torch.cat([self.own_BK, self._shared(self.log_count)], dim=1)

    def _shared(self, offset: Tensor | None) -> Tensor:
        shared = self.shared_CD if self.past_MD is None else torch.cat([self.shared_CD, self.past_MD])
        if not self.several_interests:
            return negative_logits(self.user_BD, shared, offset, self.row_P, self.column_P)
        logits = nearest(self.user_BD, shared)
        logits = logits if offset is None else logits - offset
        return logits.index_put((self.row_P, self.column_P), logits.new_tensor(float("-inf")))

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
        most_hard: most hard negatives of a row; 0 for all that there are.
        temperature: of the model.
        normalised: whether the model's vectors have length 1.
        logq_strength: how many times the log of the expected count is subtracted.
        remembered: items of earlier steps; None for none.
    """

    predictions: Mapping[str, Tensor]
    batch: Batch
    weights: Tensor | None
    in_batch: bool
    most_hard: int
    temperature: float
    normalised: bool
    logq_strength: float = 1.0
    remembered: Remembered | None = None

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
        return self._scored(self.user, self.items, self.remembered, self.temperature)

    def cosines(self, temperature: float) -> Contrast:
        """Scores by cosine, whatever the model's similarity is."""
        user, items = (x if self.normalised else F.normalize(x, dim=-1) for x in (self.user, self.items))
        past = self.remembered
        if past is not None and not self.normalised:
            past = replace(past, vectors_MD=F.normalize(past.vectors_MD, dim=-1))
        return self._scored(user, items, past, temperature)

    def _scored(self, user_BD: Tensor, items_TD: Tensor, past: Remembered | None, temperature: float) -> Contrast:
        """Scores of some vectors in place of the model's.

        Args:
            user_BD: rows, or their interests [B, I, D].
            items_TD: the rows' own items, sampled and hard ones.
            past: items of earlier steps.
            temperature: logits are inner products divided by it.
        """
        found = self.batch.candidates
        rows = user_BD.shape[0]
        # fp32 and divided before the product: a bf16 cosine / 0.03 is wrong by 0.1.
        user_BD = user_BD / temperature
        own_B1 = nearest_of_pairs(user_BD, items_TD[:rows]).unsqueeze(1)
        hard = found.get("hard")
        drawn = items_TD if hard is None else items_TD[: items_TD.shape[0] - hard.shape[1]]
        if hard is not None:
            scores_H = nearest_of_pairs(user_BD[hard[0]], items_TD[drawn.shape[0] :])
            most = self.most_hard or (int(hard[1].max()) + 1 if hard.shape[1] else 0)
            hard_BK = own_B1.new_full((rows, most), float("-inf"))
            own_B1 = torch.cat([own_B1, hard_BK.index_put((hard[0], hard[1]), scores_H)], dim=1)
        shared_CD = drawn if self.in_batch else drawn[rows:]
        row_P, column_P = found["masked"]
        log_count = found.get("log_count")
        if past is not None:
            shared = shared_CD.shape[0]
            row_P = torch.cat([row_P, past.row_P])
            column_P = torch.cat([column_P, shared + past.column_P])
            others = rows - 1 if self.in_batch else 0
            if log_count is None:
                live = others + drawn.shape[0] - rows
                factor = shared_CD.new_tensor((live + past.vectors_MD.shape[0]) / max(live, 1))
            else:
                log_share = found["log_share"][drawn.shape[0] - shared :]
                log_live, log_count = log_count[:shared], past.log_counts(log_count[:shared], log_share, others=others)
                factor = (log_count[:shared] - log_live).exp().unsqueeze(1)
            # Entries get no gradient, so that of the others stands for theirs: see rec.losses.memory.
            shared_CD = scale_gradient(shared_CD, factor)
        if log_count is not None and self.logq_strength != 1:
            log_count = self.logq_strength * log_count
        return Contrast(
            own_BK=own_B1,
            user_BD=user_BD,
            shared_CD=shared_CD,
            row_P=row_P,
            column_P=column_P,
            log_count=log_count,
            past_MD=None if past is None else past.vectors_MD,
        )
