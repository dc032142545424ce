"""Interest extraction and evolution of Deep Interest Evolution Network over jagged sequences."""

# B rows, N steps of all rows, D width of a step, Q width of the target, H width of a state
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rec.modules.linear import Linear
from rec.modules.precision import full_precision
from rec.ops.gru import attentional_gru
from rec.ops.jagged import position_of_each, repeat_rows, segment_mean, segment_softmax


class AttentionalGRU(nn.Module):
    """A gated recurrent unit over jagged rows, with an attention in its update gate where one is given.

    Args:
        in_features: D, of a step.
        width: H, of the state.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.input = Linear(in_features, 3 * width)
        self.weight = nn.Parameter(torch.empty(3 * width, width))
        self.bias = nn.Parameter(torch.zeros(3 * width))
        # A product with an orthogonal matrix neither grows nor shrinks a state.
        for block in self.weight.detach().chunk(3):
            nn.init.orthogonal_(block)

    def forward(self, steps_ND: Tensor, lengths_B: Tensor, attention_N: Tensor | None = None) -> Tensor:
        """States of every step, [N, H].

        Args:
            steps_ND: jagged steps.
            lengths_B: steps of each row.
            attention_N: factor of the update gate of each step, [N]; without it 1.
        """
        gates_NG = self.input(steps_ND).float()
        if attention_N is None:
            attention_N = torch.ones_like(gates_NG[:, 0])
        # A recurrence in half precision drifts from step to step.
        with full_precision(gates_NG):
            return attentional_gru(gates_NG, self.weight, self.bias, attention_N.float(), lengths_B)


class InterestEvolution(nn.Module):
    """How the interest in a target evolved: a softmax attention of it over the interests drives a second GRU (AUGRU).

        a_t = softmax over the row's steps of h_t W q;   h'_t = AUGRU(h_t, h'_(t-1), a_t)

    Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019, arXiv:1809.03672,
    Eq. 11-16.

    Args:
        query_features: Q, of the target.
        width: H, of the interests and of the result.
    """

    def __init__(self, query_features: int, width: int) -> None:
        super().__init__()
        self.bilinear = Linear(query_features, width, bias=False)
        self.gru = AttentionalGRU(width, width)

    def attention(self, query_BQ: Tensor, interests_NH: Tensor, lengths_B: Tensor) -> Tensor:
        """Share of each step in the target's interest, [N]; the shares of a row sum to 1."""
        key_NH = repeat_rows(self.bilinear(query_BQ), lengths_B, interests_NH)
        scores_N1 = (key_NH * interests_NH).sum(dim=1, keepdim=True).float()
        return segment_softmax(scores_N1, lengths_B).squeeze(1)

    def forward(self, query_BQ: Tensor, interests_NH: Tensor, lengths_B: Tensor) -> Tensor:
        """Evolved states of every step, [N, H]."""
        return self.gru(interests_NH, lengths_B, self.attention(query_BQ, interests_NH, lengths_B))


def next_click_loss(interests_ND: Tensor, steps_ND: Tensor, negatives_ND: Tensor, lengths_B: Tensor) -> Tensor:
    """How badly each interest tells the next click from a step that was none: DIEN's auxiliary loss of each row.

    -log sigmoid(h_t e_(t+1)) - log(1 - sigmoid(h_t e^_(t+1))), mean over the row's pairs (Eq. 8, which sums over t).

    Args:
        interests_ND: states of every step, as wide as a step.
        steps_ND: what was clicked.
        negatives_ND: what was not, in place of each step.
        lengths_B: steps of each row.

    Returns:
        [B]; 0 for a row of fewer than two steps.
    """
    # What follows a step is the next one, and nothing after a row's last.
    position_N = position_of_each(lengths_B, steps_ND)
    has_next_N = position_N + 1 < repeat_rows(lengths_B.unsqueeze(1), lengths_B, steps_ND).squeeze(1)
    right_N = (interests_ND * torch.roll(steps_ND, -1, dims=0)).sum(dim=1).float()
    wrong_N = (interests_ND * torch.roll(negatives_ND, -1, dims=0)).sum(dim=1).float()
    loss_N = (F.softplus(-right_N) + F.softplus(wrong_N)) * has_next_N
    pairs_B = (lengths_B - 1).clamp(min=1)
    return segment_mean(loss_N.unsqueeze(1), lengths_B).squeeze(1) * lengths_B / pairs_B
