import math

import pytest
from scipy import stats as scipy_stats

from tools.experiments import stats


def test_mean_and_sample_standard_deviation():
    # Deviations -1, 0, 1: sum of squares 2, over n - 1 = 2.
    assert stats.summary([1.0, 2.0, 3.0]) == stats.Summary(3, 2.0, 1.0)
    assert math.isnan(stats.summary([0.5]).std)


def test_three_pairs_by_hand():
    # Differences 1, 2, 3: mean 2, error 1 / sqrt(3), t = 2 sqrt(3) = 3.4641; with two degrees of freedom
    # p = 1 - t / sqrt(t^2 + 2) = 0.07418. Signs: of 8 patterns only +++ and --- reach a sum of 6.
    result = stats.paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert result.mean == 2
    assert result.p_t == pytest.approx(1 - 12**0.5 / 14**0.5, rel=1e-12)
    assert result.p_exact == 0.25
    assert (result.low + result.high) / 2 == pytest.approx(2)
    assert result.high - 2 == pytest.approx(4.302652729911275 / 3**0.5, rel=1e-9)  # t table: 4.303


def test_the_smallest_exact_p_is_two_patterns_of_all():
    for n in (2, 3, 5, 8):
        assert stats.sign_flip([0.1 * (i + 1) for i in range(n)]) == 2 / 2**n
    assert stats.sign_flip([1.0, -1.0]) == 1.0
    # Sums of the same numbers in another order must count as equal: .1 + .2 - .3 is not 0 in floats.
    assert stats.sign_flip([0.1, 0.2, -0.3]) == 1.0
    assert math.isnan(stats.sign_flip([1.0] * (stats.MOST_EXACT + 1)))


def test_equal_runs_are_no_difference_and_one_pair_no_test():
    assert stats.paired([0.7, 0.8], [0.7, 0.8]).p_t == 1.0
    assert stats.paired([0.7], [0.6]) is None
    with pytest.raises(ValueError, match="zip"):
        stats.paired([0.7, 0.8], [0.6])


def test_holm_by_hand():
    # Sorted .01, .03, .04 times 3, 2, 1 are .03, .06, .04; none may be below one before it.
    assert stats.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 60])
def test_student_t_equals_scipy(degrees):
    for t in (0.0, 0.01, 0.7, 2.5, 12.0, 300.0):
        ours = stats.student_t_two_sided(t, degrees)
        # Both are double arithmetic of some hundred operations.
        assert ours == pytest.approx(2 * scipy_stats.t.sf(t, degrees), rel=1e-9, abs=1e-15)
    assert stats.student_t_quantile(0.975, degrees) == pytest.approx(scipy_stats.t.ppf(0.975, degrees), rel=1e-9)


def test_paired_t_equals_scipy():
    a, b = [0.791, 0.793, 0.789, 0.795, 0.790], [0.788, 0.792, 0.790, 0.791, 0.789]
    result, theirs = stats.paired(a, b), scipy_stats.ttest_rel(a, b)
    assert result.p_t == pytest.approx(theirs.pvalue, rel=1e-9)
    interval = theirs.confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
