"""Trends by hand, against brute force, and on series whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.analyses.trend import FEWEST, average_ranks, spearman, theil_sen, trend


def test_a_straight_line_has_its_slope_its_rise_and_no_spread() -> None:
    found = trend([2.0, 4.0, 6.0, 8.0, 10.0])

    assert (found.slope, found.rise, found.spread) == (2.0, 10.0, 0.0)
    # all 10 pairs rise: (10 - 1) / sqrt(5 * 4 * 15 / 18)
    assert found.plain_z == pytest.approx(9 / math.sqrt(5 * 4 * 15 / 18))


def test_equal_values_lower_the_variance_by_their_ties() -> None:
    found = trend([1.0, 1.0, 2.0, 2.0])

    # of 6 pairs 4 rise; variance (4 * 3 * 13 - 2 * 2 * 1 * 9) / 18
    assert found.plain_z == pytest.approx(3 / math.sqrt((156 - 36) / 18))


def test_positions_with_holes_give_the_slope_per_position() -> None:
    found = trend([0.0, 2.0, 20.0, 22.0], at=[0, 1, 10, 11])

    assert found.slope == 2.0
    assert found.rise == pytest.approx(2.0 * 11 * 4 / 3)


def test_a_series_that_never_changes_has_no_trend() -> None:
    found = trend([3.0] * 10)

    assert (found.slope, found.z, found.plain_z, found.rise, found.spread) == (0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("values", [[1.0] * (FEWEST - 1), [1.0, 2.0, math.nan, 4.0, 5.0]])
def test_too_few_values_or_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 4 finite values"):
        trend(values)


@given(st.lists(st.integers(-5, 5), min_size=FEWEST, max_size=40))
def test_the_score_is_that_of_counting_all_pairs(values: list[int]) -> None:
    count = len(values)
    score = sum(np.sign(values[j] - values[i]) for i in range(count) for j in range(i + 1, count))
    ties = [values.count(value) for value in set(values)]
    variance = (count * (count - 1) * (2 * count + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    expected = (score - np.sign(score)) / math.sqrt(variance) if score else 0.0

    assert trend(values).plain_z == pytest.approx(expected)


@given(st.lists(st.floats(-1e6, 1e6), min_size=FEWEST, max_size=30), st.floats(0.5, 100.0))
def test_scaling_a_series_scales_its_slope(values: list[float], factor: float) -> None:
    assert theil_sen(np.array(values) * factor) == pytest.approx(theil_sen(values) * factor, rel=1e-6, abs=1e-6)


def test_a_third_of_outliers_does_not_move_the_slope() -> None:
    values = np.arange(300.0)
    values[::4] = 1e9

    assert theil_sen(values) == pytest.approx(1.0, rel=0.2)


def test_a_sample_of_pairs_is_the_same_each_time() -> None:
    values = np.random.default_rng(1).normal(size=1000).cumsum()

    assert theil_sen(values) == theil_sen(values)
    assert theil_sen(values) != theil_sen(values, seed=1)


def test_a_random_walk_looks_like_a_trend_only_to_the_plain_test() -> None:
    plain = corrected = 0
    for seed in range(100):
        found = trend(np.random.default_rng(seed).normal(size=200).cumsum())
        plain, corrected = plain + (abs(found.plain_z) > 4), corrected + (abs(found.z) > 4)

    assert plain > 50
    assert corrected < 15


def test_independent_noise_has_the_spread_of_a_normal_z() -> None:
    values = np.array([trend(np.random.default_rng(seed).normal(size=100)).z for seed in range(300)])

    assert abs(values.mean()) < 0.2
    assert 0.8 < values.std() < 1.1


def test_a_rise_in_noise_is_seen_after_the_correction() -> None:
    noise = np.random.default_rng(3).normal(scale=5.0, size=300)

    assert trend(np.arange(300) * 0.1 + noise).z > 4


def test_differences_under_the_granule_do_not_count_as_alike() -> None:
    hum = np.sin(np.arange(200) / 30) * 10  # slow, so that neighbours are alike
    series = np.arange(200.0) * 512 + hum

    assert trend(series, granule=512).z >= trend(series).z


def test_ranks_of_equal_values_are_their_mean_and_correlation_of_a_constant_is_unknown() -> None:
    assert average_ranks([3.0, 3.0, 1.0]).tolist() == [2.5, 2.5, 1.0]
    assert spearman([1.0, 2.0, 3.0], [30.0, 20.0, 10.0]) == pytest.approx(-1.0)
    assert math.isnan(spearman([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]))
