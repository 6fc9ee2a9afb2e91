"""Running sums, averages over time, and fewer points of the same shape."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from perfnb.analyses.step_functions import lasting, quantile_over_time, running, thinned, thinned_rows


def test_a_value_lasts_to_the_next_moment_and_the_last_one_to_the_end() -> None:
    assert lasting(np.array([1.0, 4.0, 9.0]), 10.0).tolist() == [3.0, 5.0, 1.0]
    assert lasting(np.array([1.0]), 1.0).tolist() == [0.0]
    assert lasting(np.empty(0), 5.0).tolist() == []


def test_changes_of_one_moment_count_together_whatever_their_order() -> None:
    time, value = running([5, 1, 5, 5], [-1, 1, 2, -1])

    assert time.tolist() == [1.0, 5.0]
    assert value.tolist() == [1.0, 1.0]


def test_a_quantile_weighs_each_value_by_the_time_that_it_lasts() -> None:
    value, lasted = np.array([0.0, 10.0, 2.0]), np.array([6.0, 1.0, 3.0])

    assert [quantile_over_time(value, lasted, share) for share in (0.5, 0.6, 0.9, 0.95)] == [0.0, 0.0, 2.0, 10.0]
    assert np.isnan(quantile_over_time(value, np.zeros(3), 0.5))


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=300), st.integers(1, 20))
def test_thinning_keeps_first_last_least_and_largest_in_few_points(values: list[int], buckets: int) -> None:
    value = np.array(values, dtype=float)
    time = np.cumsum(np.abs(value)) / 7.0

    kept = thinned_rows(time, value, buckets)

    assert len(kept) <= 4 * buckets
    assert kept[0] == 0
    assert kept[-1] == len(value) - 1
    assert value[kept].max() == value.max()
    assert value[kept].min() == value.min()
    assert (np.diff(kept) > 0).all()


def test_the_lines_of_a_table_share_the_rows_and_rows_without_a_value_go() -> None:
    frame = pd.DataFrame({"line": ["a"] * 500 + ["b"] * 500, "time_us": [*range(500)] * 2, "value": [1.0, 9.0, 1.0, 1.0] * 250})
    frame.loc[0, "value"] = np.nan

    found = thinned(frame, ["line"], "value", 80)

    assert found.groupby("line").size().between(4, 40).all()
    assert found["value"].notna().all()
    assert found.groupby("line")["value"].max().to_list() == [9.0, 9.0]


def test_more_lines_than_a_chart_can_tell_apart_are_left_out_and_counted() -> None:
    lines = pd.DataFrame({"line": np.repeat(np.arange(640), 8), "time_us": np.tile(np.arange(8.0), 640)})
    lines = lines.assign(value=lines["line"] + lines["time_us"])

    few = thinned(lines, ["line"], "value", 2000)

    assert len(few) <= 2000
    assert sorted(few["line"].unique()) == list(range(619, 640))
    assert few.attrs["lines_left_out"] == 619
