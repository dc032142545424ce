"""Several interests of a user: by self-attention over the history, and which of them an item speaks to."""

# B rows, N steps of all rows, L places for the steps of a row, K interests, D width
from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.modules.capsules import LOWEST, at_least_one, padded_steps
from rec.modules.linear import Linear
from rec.modules.precision import full_precision
from rec.ops.jagged import position_of_each, segment_softmax


class SelfAttentiveInterests(nn.Module):
    """ComiRec-SA: A = softmax over the steps of W2 tanh(W1 (h + p)), interests V = A h.

    Cen et al., "Controllable Multi-Interest Framework for Recommendation", arXiv:2005.09347, Eq. 4 and 5; after Lin et
    al., "A Structured Self-attentive Sentence Embedding", arXiv:1703.03130.

    Args:
        width: D of a step and of an interest.
        places: L, steps of a row that count, its first.
        num_interests: K.
        hidden_dim: rows of W1; 0 is 4 D.
        positions: adds a learned vector p for the step's place, within the tanh only.

    Raises:
        ValueError: for a setting that cannot be; it begins with the argument's name.
    """

    def __init__(
        self, width: int, *, places: int, num_interests: int = 4, hidden_dim: int = 0, positions: bool = True
    ) -> None:
        super().__init__()
        at_least_one(num_interests=num_interests)
        self.places, hidden_dim = places, hidden_dim or 4 * width
        self.position_LD = nn.Parameter(torch.empty(places, width)) if positions else None
        if self.position_LD is not None:
            nn.init.xavier_uniform_(self.position_LD)
        self.hidden, self.score = Linear(width, hidden_dim), Linear(hidden_dim, num_interests, bias=False)

    def forward(self, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """Interests [B, K, D]; 0 for a row without steps."""
        seen_ND = steps_ND
        place_N = position_of_each(lengths_B, steps_ND)
        if self.position_LD is not None:
            seen_ND = seen_ND + self.position_LD.index_select(0, place_N.clamp(max=self.places - 1))
        scores_NK = self.score(torch.tanh(self.hidden(seen_ND))).float()
        scores_NK = torch.where((place_N < self.places).unsqueeze(1), scores_NK, LOWEST)
        with full_precision(scores_NK):
            share_BLK = padded_steps(segment_softmax(scores_NK, lengths_B), lengths_B, self.places)
            steps_BLD = padded_steps(steps_ND.float(), lengths_B, self.places)
            return torch.bmm(share_BLK.transpose(1, 2), steps_BLD)


def label_aware_attention(interests_BKD: Tensor, items_BD: Tensor, has_BK: Tensor, power: float) -> Tensor:
    """One vector for a user and an item: sum over k of softmax(power <v_k, e>) v_k, over the interests that a row has.

    Li et al., arXiv:1904.08030, Eq. 8, where <v_k, e> is raised to the power. Then similarities below 1 fade and
    negative ones lose their sign; as a factor it does what the paper asks of it: 0 takes the mean of the interests,
    more prefers the nearest, and infinitely much takes it alone.

    Args:
        interests_BKD: v.
        items_BD: e, the item of each row.
        has_BK: which interests a row has.
        power: of the attention.
    """
    likeness_BK = torch.bmm(interests_BKD, items_BD.unsqueeze(2)).squeeze(2).float()
    weight_BK = torch.softmax(torch.where(has_BK, power * likeness_BK, LOWEST), dim=1).to(interests_BKD.dtype)
    return torch.bmm(weight_BK.unsqueeze(1), interests_BKD).squeeze(1)


def nearest_interest(interests_BKD: Tensor, items_BD: Tensor) -> Tensor:
    """The interest that an item is most like, [B, D]: v at argmax over k of <v_k, e>.

    Cen et al., arXiv:2005.09347, Eq. 6. The choice has no gradient, the interest has.
    """
    with torch.no_grad():
        best_B = torch.bmm(interests_BKD, items_BD.unsqueeze(2)).squeeze(2).argmax(dim=1)
    index_B1D = best_B[:, None, None].expand(-1, 1, interests_BKD.shape[2])
    return interests_BKD.gather(1, index_B1D).squeeze(1)
