"""Whether two modules give the same scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Features = dict[str, Tensor]
Scores = Mapping[str, Tensor]

# Sums over ids and fields in another order, in float32, then a few layers; relative beyond 1.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Difference:
    """What a comparison found.

    Attributes:
        largest: of |a - b| over all scores.
        relative: of |a - b| / max(1, |b|), which the tolerance is for.
    """

    largest: float = 0.0
    relative: float = 0.0

    def __or__(self, other: Difference) -> Difference:
        return Difference(max(self.largest, other.largest), max(self.relative, other.relative))


def difference(got: Scores, expected: Scores) -> Difference:
    """Largest difference of two dicts of scores; not-a-numbers must be at the same places.

    Raises:
        ValueError: other names, shapes or types.
    """
    if list(got) != list(expected):
        raise ValueError(f"outputs are {list(got)}, expected {list(expected)}")
    found = Difference()
    for name, want in expected.items():
        have = got[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise ValueError(
                f"output {name} is {have.dtype} {list(have.shape)}, expected {want.dtype} {list(want.shape)}"
            )
        if not torch.equal(have.isfinite(), want.isfinite()):
            raise ValueError(f"output {name} is not finite at other rows than expected")
        finite = want.isfinite()
        gap = (have[finite].double() - want[finite].double()).abs()
        if gap.numel():
            scale = want[finite].double().abs().clamp(min=1)
            found |= Difference(gap.max().item(), (gap / scale).max().item())
    return found


@torch.no_grad()
def compare(
    got: Callable[[Features], Scores], expected: Callable[[Features], Scores], batches: Mapping[str, Features]
) -> dict[str, Difference]:
    """Difference of two modules on each named batch."""
    return {name: difference(got(features), expected(features)) for name, features in batches.items()}
