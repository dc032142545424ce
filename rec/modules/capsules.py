"""Dynamic routing: the steps of a history grouped into interests, as capsule networks do it."""

# B rows, N steps of all rows, L places for the steps of a row, K interests, D width of a step, H of an interest
from __future__ import annotations

import torch
from torch import Tensor, nn

from rec.modules.precision import full_precision
from rec.ops.jagged import flat_places, position_of_each, to_padded

# Logit of an interest that a row has not: below any other, but finite.
LOWEST = -3e38
# Seed of the routing's initial logits: a property of the method, the same in every model and every run.
ROUTING_SEED = 1904_08030


def squash(z: Tensor, power: float = 1.0) -> Tensor:
    """(|z|^2 / (1 + |z|^2))^power z / |z| over the last dimension: its length as a share of 1. 0 stays 0.

    Sabour et al., "Dynamic Routing Between Capsules", arXiv:1710.09829, Eq. 1, of which the power is 1.
    """
    square = z.square().sum(dim=-1, keepdim=True).clamp(min=1e-12)
    return (square / (1 + square)) ** power * torch.rsqrt(square) * z


def route(
    low: Tensor, logits: Tensor, *, iterations: int, shared: bool, scale: float = 1.0, power: float = 1.0
) -> Tensor:
    """Interests of steps by routing with agreement: [B, K, H].

    w_lk = softmax over k of b_lk;  u_k = squash(sum over l of w_lk c_lk);  b_lk += scale <u_k, c_lk>

    Only the last sum has a gradient: weights are what the steps agreed on, not what is learned.

    Args:
        low: what step l says of interest k, c: [B, L, H] where it is the same for all (`shared`), else [B, L, K, H]; 0
            for places without a step.
        logits: b at the start, [B, L, K]; `LOWEST` for interests that a row has not.
        iterations: how often u is made, at least once.
        shared: whether steps say the same of all interests.
        scale: factor of the agreement.
        power: of `squash`.
    """
    fixed = low.detach()
    interests = low
    for iteration in range(iterations):
        last = iteration == iterations - 1
        weights_BKL = torch.softmax(logits, dim=2).transpose(1, 2)
        said = low if last else fixed
        if shared:
            sums = torch.bmm(weights_BKL, said)
        else:
            sums = torch.matmul(weights_BKL.unsqueeze(2), said.transpose(1, 2)).squeeze(2)
        interests = squash(sums, power)
        if not last:
            if shared:
                agreed_BLK = torch.bmm(said, interests.transpose(1, 2))
            else:
                agreed_BLK = (said * interests.unsqueeze(1)).sum(dim=3)
            logits = logits + scale * agreed_BLK
    return interests


class B2ICapsule(nn.Module):
    """Behaviour-to-interest routing of MIND: interests of one bilinear map, as many as the history is long.

    c_l = S e_l, the same for all interests;  K' = max(1, min(K, floor(log2 length))).
    b starts with draws of N(0, stddev^2), which tell the interests apart. They are the same in every row and at every
    call, so a user's interests depend on nothing but the history.

    Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", arXiv:1904.08030, Eq. 3-7 and
    9, Algorithm 1.

    Args:
        in_features: D.
        max_seq_len: L, steps of a row that count, its first.
        high_dim: H.
        max_k: K, most interests.
        num_iters: iterations of the routing.
        routing_logits_scale: factor of the agreement; 1 in the paper.
        routing_logits_stddev: standard deviation of the logits at the start.
        squash_pow: power of `squash`; 1 in the paper.
        const_caps_num: every row has K interests.
        routing_init_method: "normal", or "zeros" of logits at the start: then all interests are the same.

    Raises:
        ValueError: for a setting that cannot be; it begins with the argument's name.
    """

    start_LK: Tensor
    shortest_K: Tensor

    def __init__(
        self,
        in_features: int,
        *,
        max_seq_len: int,
        high_dim: int,
        max_k: int = 5,
        num_iters: int = 3,
        routing_logits_scale: float = 20.0,
        routing_logits_stddev: float = 1.0,
        squash_pow: float = 1.0,
        const_caps_num: bool = False,
        routing_init_method: str = "normal",
    ) -> None:
        super().__init__()
        at_least_one(max_k=max_k, max_seq_len=max_seq_len, high_dim=high_dim, num_iters=num_iters)
        if routing_init_method not in ("normal", "zeros"):
            raise ValueError(f'routing_init_method is "{routing_init_method}", expected "normal" or "zeros"')
        if not routing_logits_stddev >= 0:
            raise ValueError(f"routing_logits_stddev is {routing_logits_stddev:g}, expected >= 0")
        if not squash_pow > 0:
            raise ValueError(f"squash_pow is {squash_pow:g}, expected > 0")
        if max_k > 1 and (routing_init_method == "zeros" or routing_logits_stddev == 0):
            raise ValueError(
                "routing_init_method zeros (or a routing_logits_stddev of 0) makes all interests the same: nothing "
                "tells them apart; leave it out, or set max_k: 1"
            )
        self.places, self.max_k, self.iterations = max_seq_len, max_k, num_iters
        self.scale, self.power = routing_logits_scale, squash_pow
        # N(0, 1), as in published code: squash wants sums of about unit length, and tables start small.
        self.bilinear = nn.Parameter(torch.randn(in_features, high_dim))
        draw = torch.Generator().manual_seed(ROUTING_SEED)
        start_LK = torch.randn(max_seq_len, max_k, generator=draw)
        self.register_buffer("start_LK", routing_logits_stddev * start_LK)
        # Whole numbers in place of a logarithm: floor(log2 length) > k where length >= 2^(k+1).
        shortest = [0 if const_caps_num or k == 0 else 2 ** (k + 1) for k in range(max_k)]
        self.register_buffer("shortest_K", torch.tensor(shortest))

    def forward(self, steps_ND: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Interests [B, K, H], and which of them a row has, bool [B, K]; the others are 0.

        Args:
            steps_ND: jagged steps [N, D].
            lengths_B: steps of each row; a row without any has one interest, which is 0.
        """
        steps_ND = steps_ND.float()
        with full_precision(steps_ND):
            low_BLH = padded_steps(steps_ND @ self.bilinear, lengths_B, self.places)
            has_BK = lengths_B.clamp(max=self.places).unsqueeze(1) >= self.shortest_K
            logits_BLK = torch.where(has_BK.unsqueeze(1), self.start_LK, LOWEST)
            high_BKH = route(
                low_BLH, logits_BLK, iterations=self.iterations, shared=True, scale=self.scale, power=self.power
            )
        return high_BKH, has_BK


class InterestCapsules(nn.Module):
    """Dynamic routing of ComiRec-DR: a matrix for each interest, and logits that start at 0.

    c_lk = W_lk e_l, by the place of the step too, or W_k e_l for all places alike.

    Cen et al., "Controllable Multi-Interest Framework for Recommendation", arXiv:2005.09347, section 3.1, Algorithm 1.

    Args:
        in_features: D.
        places: L, steps of a row that count, its first.
        width: H.
        num_interests: K.
        iterations: of the routing.
        by_place: whether the matrix depends on the step's place.

    Raises:
        ValueError: for a setting that cannot be; it begins with the argument's name.
    """

    def __init__(
        self,
        in_features: int,
        *,
        places: int,
        width: int,
        num_interests: int = 4,
        iterations: int = 3,
        by_place: bool = True,
    ) -> None:
        super().__init__()
        at_least_one(num_interests=num_interests, num_iters=iterations)
        self.places, self.num_interests, self.width = places, num_interests, width
        self.iterations, self.by_place = iterations, by_place
        shape = (places, in_features, num_interests * width) if by_place else (in_features, num_interests * width)
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, steps_ND: Tensor, lengths_B: Tensor) -> Tensor:
        """Interests [B, K, H]; 0 for a row without steps."""
        steps_ND = steps_ND.float()
        with full_precision(steps_ND):
            if self.by_place:
                steps_LBD = padded_steps(steps_ND, lengths_B, self.places).transpose(0, 1)
                said = torch.bmm(steps_LBD, self.weight).transpose(0, 1)
            else:
                said = padded_steps(steps_ND @ self.weight, lengths_B, self.places)
            low_BLKH = said.unflatten(2, (self.num_interests, self.width))
            logits_BLK = torch.zeros_like(low_BLKH.detach().select(3, 0))
            return route(low_BLKH, logits_BLK, iterations=self.iterations, shared=False)


def padded_steps(steps_ND: Tensor, lengths_B: Tensor, places: int) -> Tensor:
    """The first `places` steps of each row in a rectangle, 0 where there is none: [B, L, D].

    For products of small matrices in every row, which would otherwise write K times the steps.
    """
    place_N = position_of_each(lengths_B, steps_ND)
    return to_padded(steps_ND, flat_places(place_N, lengths_B, places), lengths_B, places)


def at_least_one(**settings: int) -> None:
    """Refuse a number below 1, by the setting's name."""
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")


def repeat_first(vectors_BKD: Tensor, has_BK: Tensor) -> Tensor:
    """The first interest in place of those that a row has not: no largest score and no list of items changes."""
    return torch.where(has_BK.unsqueeze(2), vectors_BKD, vectors_BKD[:, :1])
