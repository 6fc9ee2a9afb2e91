"""Statistics of curves, against values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.training.statistics import (
    ALARM_Z,
    LOOKS,
    block_means,
    log_loss,
    looks,
    mann_kendall,
    neighbour_correlation,
    over_looks,
    robust_sigma,
    theil_sen_range,
    upper_tail,
    wilson_interval,
)


def test_blocks_grow_with_the_curve_and_an_incomplete_one_is_dropped() -> None:
    assert block_means(range(399)).tolist() == list(range(399))
    assert block_means(range(401)).tolist() == [0.5 + 2 * block for block in range(200)]


def test_a_block_with_a_nan_is_nan() -> None:
    assert np.isnan(block_means([1.0, math.nan, 3.0, 5.0], at_most=2)).tolist() == [True, False]


def test_logarithms_of_losses_below_zero_are_of_losses_shifted_up() -> None:
    found = log_loss([-2.0, 0.0, 2.0])

    # shifted by 2.02: 0.02, 2.02, 4.02
    assert found.tolist() == pytest.approx([math.log(0.02), math.log(2.02), math.log(4.02)])


def test_a_loss_of_zero_has_a_logarithm() -> None:
    assert log_loss([0.0]).tolist() == [pytest.approx(math.log(1e-8))]


def test_mann_kendall_of_a_rise_with_one_inversion_by_hand() -> None:
    # nine values, two neighbours swapped: S = 36 - 2 = 34, variance = 9 * 8 * 23 / 18 = 92, z = 33 / sqrt(92)
    # the rest about the line alternates, r < 0, so that nothing is added
    found = mann_kendall([1, 2, 3, 4, 6, 5, 7, 8, 9])

    assert found is not None
    assert found.autocorrelation == 0.0
    assert found.z == pytest.approx(33 / math.sqrt(92))
    assert found.p_value == pytest.approx(0.5 * math.erfc(33 / math.sqrt(92) / math.sqrt(2)))


def test_mann_kendall_counts_ties_in_its_variance() -> None:
    # 1 1 2 2 3 3 4 4: S = 28 - 4 = 24; variance = (8 * 7 * 21 - 4 * 2 * 1 * 9) / 18 = (1176 - 72) / 18
    found = mann_kendall([1, 1, 2, 2, 3, 3, 4, 4])

    assert found is not None
    plain = 23 / math.sqrt(1104 / 18)
    alike = found.autocorrelation
    assert found.z == pytest.approx(plain * math.sqrt((1 - alike) / (1 + alike)))


def test_neighbours_that_are_alike_weaken_a_trend() -> None:
    random = np.random.default_rng(0)
    steps = random.normal(size=200)
    walk = np.zeros(200)
    for place in range(1, 200):
        walk[place] = 0.9 * walk[place - 1] + steps[place]
    found = mann_kendall(walk + 0.01 * np.arange(200))

    assert found is not None
    assert found.autocorrelation > 0.5
    assert abs(found.z) < ALARM_Z


@pytest.mark.parametrize("series", [range(7), [1.0] * 20, [1.0, math.nan, *range(10)], [math.inf, *range(10)]])
def test_too_short_a_constant_or_a_series_with_gaps_has_no_trend_to_test(series: list[float]) -> None:
    assert mann_kendall(series) is None


@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=8, max_size=40))
def test_a_series_and_its_negative_have_opposite_trends(series: list[float]) -> None:
    found, other = mann_kendall(series), mann_kendall([-value for value in series])

    assert (found is None) == (other is None)
    if found and other:
        assert found.z == pytest.approx(-other.z, abs=1e-6)


def test_twenty_looks_at_the_alarm_raise_one_false_alarm_in_a_hundred_runs_at_most() -> None:
    assert LOOKS * upper_tail(ALARM_Z) < 0.01
    assert over_looks(upper_tail(ALARM_Z)) < 0.01


def test_noise_without_a_trend_passes_the_alarm_as_rarely_as_promised() -> None:
    random = np.random.default_rng(1)
    found = [mann_kendall(random.normal(size=50)) for _ in range(2_000)]

    assert sum(each.z > ALARM_Z for each in found if each) <= 4  # 1 expected; 5 or more have a chance of 0.4 %


def test_looks_stand_at_twentieths_of_the_plan() -> None:
    assert looks(range(10, 110), 100).tolist() == [5 * look for look in range(1, 21)]


def test_looks_without_a_plan_grow_by_half() -> None:
    assert looks(range(1000), None).tolist() == [200, 300, 450, 675]


def test_a_log_with_gaps_is_looked_at_with_the_points_that_it_has() -> None:
    assert looks(range(0, 1000, 50), 1000).tolist() == list(range(1, 20))  # step 950 is not the end
    assert looks([], 100).tolist() == []


def test_robust_sigma_of_a_constant_is_zero() -> None:
    assert robust_sigma([3.0, 3.0, 3.0, 9.0]) == 0.0


def test_a_line_with_one_outlier_keeps_its_slope_and_gets_an_interval() -> None:
    values = 2.0 * np.arange(20.0)
    values[7] = 500.0

    slope, low, high = theil_sen_range(values)

    assert low <= slope <= high
    assert slope == pytest.approx(2.0)


def test_wilson_interval_of_no_hits_starts_at_zero() -> None:
    low, high = wilson_interval(0, 10)

    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(1.96**2 / (10 + 1.96**2), abs=1e-4)


def test_a_constant_is_not_correlated_with_itself() -> None:
    assert neighbour_correlation(np.full(9, 0.1)) == 0.0
