"""What a handful of random seeds can say: mean and spread, and tests of the difference between two rows.

Runs are paired by their seed. With three to five of them a test finds only differences that are large against the
spread; a p above 0.05 is no proof that two models are alike.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Sign patterns of so many pairs are counted one by one (65,536).
MOST_EXACT = 16


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of a metric over runs; the latter nan for one run."""

    n: int
    mean: float
    std: float


def summary(values: Sequence[float]) -> Summary:
    """Of one value or more."""
    return Summary(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)


@dataclass(frozen=True)
class Paired:
    """The difference of paired runs, and how surely it is not chance.

    Attributes:
        n: pairs.
        mean: mean difference.
        low, high: its 95 % confidence interval by Student's t.
        p_t: of the two-sided paired t-test; assumes that differences are normal.
        p_exact: share of all sign patterns of the differences whose mean is at least as far from 0 (the exact paired
            permutation test); assumes nothing but symmetry. Not below 2 / 2^n: 0.25 for 3 pairs, 0.0625 for 5. nan
            beyond 16 pairs.
    """

    n: int
    mean: float
    low: float
    high: float
    p_t: float
    p_exact: float


def paired(a: Sequence[float], b: Sequence[float]) -> Paired | None:
    """Tests a - b; None with fewer than two pairs."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    reach = student_t_quantile(0.975, n - 1) * error
    alike = 1.0 if mean == 0 else 0.0
    p_t = alike if error == 0 else student_t_two_sided(mean / error, n - 1)
    return Paired(n, mean, mean - reach, mean + reach, p_t, sign_flip(differences))


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p value of the paired permutation test of the mean (Fisher's); nan beyond MOST_EXACT pairs."""
    if len(differences) > MOST_EXACT:
        return math.nan
    # A pattern and its equals must not be told apart by rounding.
    bound = abs(sum(differences)) - 1e-12 * sum(map(abs, differences))
    patterns = itertools.product((1, -1), repeat=len(differences))
    far = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= bound for signs in patterns)
    return far / 2 ** len(differences)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p values for their number (Holm 1979): rejecting those below alpha errs in at most alpha of tables."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def student_t_two_sided(t: float, degrees: int) -> float:
    """P(|T| >= |t|) of Student's distribution: I_{v / (v + t^2)}(v / 2, 1 / 2), v the degrees of freedom."""
    return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def student_t_quantile(p: float, degrees: int) -> float:
    """The t with P(T <= t) = p, p in (0.5, 1)."""
    return _root(lambda t: student_t_two_sided(t, degrees) / 2 - (1 - p))


def _root(falling: Callable[[float], float]) -> float:
    high = 1.0
    while falling(high) > 0:
        high *= 2
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 1000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + term * d, tiny)
            c = _not_zero(1 + term / c, tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return front * value / a
    raise ArithmeticError(f"the incomplete beta function did not converge at a={a}, b={b}, x={x}")


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
