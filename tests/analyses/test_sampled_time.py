"""Mean of a sampled value over windows of time."""

from __future__ import annotations

import numpy as np
import pytest

from perfnb.analyses.sampled_time import mean_between


def test_a_window_between_two_samples_has_the_value_of_the_later() -> None:
    assert mean_between([0, 100, 200], [9.0, 1.0, 0.0], [10, 110], [20, 120]).tolist() == [1.0, 0.0]


def test_a_window_over_an_edge_has_the_mean_by_time() -> None:
    assert mean_between([0, 100, 200], [np.nan, 1.0, 0.0], [70], [110]).tolist() == [pytest.approx(0.75)]


def test_what_no_sample_tells_of_is_nan_and_does_not_weigh() -> None:
    means = mean_between([0, 100, 200, 300], [np.nan, np.nan, 0.5, np.nan], [0, 50, 250, 300], [100, 150, 300, 400])

    assert np.isnan(means[[0, 2, 3]]).all()
    assert means[1] == pytest.approx(0.5)


def test_one_sample_tells_of_no_time() -> None:
    assert np.isnan(mean_between([100], [1.0], [0], [100])).all()


def test_windows_shorter_than_the_distance_of_samples_sum_to_the_whole() -> None:
    edges = np.arange(0, 1001, 10)
    values = [np.nan, *np.linspace(0, 1, 10)]

    means = mean_between(np.arange(0, 1001, 100), values, edges[:-1], edges[1:])

    assert (means * 10).sum() == pytest.approx(sum(values[1:]) * 100)
