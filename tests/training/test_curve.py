"""Curves: ranks joined, non-finite losses kept, restarts, and what the config says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perfnb.detector import Unmeasured
from perfnb.tables import empty, table_from_text
from perfnb.training.curve import curve_of


def test_ranks_are_joined_to_one_point_per_step() -> None:
    table = table_from_text("training", "rank step loss batch_size\n0 1 2 8\n1 1 4 8\n0 2 1 8\n1 2 2 8")

    curve = curve_of(table, {})

    assert curve.steps.tolist() == [1, 2]
    assert curve.losses.tolist() == [3.0, 1.5]
    assert curve.batch_sizes.tolist() == [16.0, 16.0]
    assert curve.ranks == (0, 1)


def test_one_ranks_nan_makes_the_step_non_finite() -> None:
    table = table_from_text("training", "rank step loss finite\n0 1 2 True\n1 1 - False\n0 2 2 True\n1 2 2 True")

    curve = curve_of(table, {})

    assert np.isnan(curve.losses).tolist() == [True, False]
    assert curve.is_finite.tolist() == [False, True]
    assert curve.is_told.tolist() == [True, True]


def test_a_step_without_a_loss_is_no_point_and_no_nan() -> None:
    table = table_from_text("training", "rank step loss validation_loss\n0 1 2 -\n0 2 - 3\n0 3 1 -")

    curve = curve_of(table, {})

    assert curve.points.tolist() == [0, 2]
    assert curve.is_finite.all()


def test_an_infinite_loss_is_not_finite_whatever_the_log_says() -> None:
    assert not curve_of(table_from_text("training", "rank step loss\n0 1 inf"), {}).is_finite[0]


def test_of_steps_run_twice_the_later_history_counts() -> None:
    rows = "0 1 9\n0 2 8\n0 3 7\n0 4 6\n0 2 5\n0 3 4"
    curve = curve_of(table_from_text("training", f"rank step loss\n{rows}"), {})

    assert curve.steps.tolist() == [1, 2, 3]
    assert curve.losses.tolist() == [9.0, 5.0, 4.0]
    assert curve.repeated_steps == (2, 3, 4)


def test_a_rate_that_a_schedule_moves_is_not_constant() -> None:
    still = table_from_text("training", "rank step loss learning_rate\n0 1 1 0.1\n0 2 1 0.1\n0 3 1 0.1")
    moved = table_from_text("training", "rank step loss learning_rate\n0 1 1 0.1\n0 2 1 0.1\n0 3 1 0.05")
    silent = table_from_text("training", "rank step loss\n0 1 1\n0 2 1")

    assert curve_of(still, {}).is_constant_rate is True
    assert curve_of(moved, {"schedule": "constant"}).is_constant_rate is False
    assert curve_of(silent, {}).is_constant_rate is None
    assert curve_of(silent, {"schedule": "cosine"}).is_constant_rate is False
    assert curve_of(moved, {"warmup_steps": 2}).is_constant_rate is None  # one rate after warm-up


@pytest.mark.parametrize("value", [True, "100", -3, 0, 1.5, math.nan, math.inf, None, [100]])
def test_a_plan_that_is_no_number_of_steps_is_no_plan(value: object) -> None:
    curve = curve_of(table_from_text("training", "rank step loss\n0 1 1"), {"planned_steps": value})

    assert curve.planned_steps is None


def test_two_places_for_one_knob_are_no_plan() -> None:
    config = {"a": {"planned_steps": 1}, "b": {"planned_steps": 2}}

    assert curve_of(table_from_text("training", "rank step loss\n0 1 1"), config).planned_steps is None


def test_the_mean_of_the_first_three_losses_is_where_a_run_began() -> None:
    table = table_from_text("training", "rank step loss\n0 1 1\n0 2 2\n0 3 6\n0 4 0")

    assert curve_of(table, {}).first_loss == 3.0
    assert math.isnan(curve_of(table.head(2), {}).first_loss)


def test_an_empty_table_cannot_be_looked_at() -> None:
    with pytest.raises(Unmeasured, match="has no rows"):
        curve_of(empty("training"), {})


def test_a_curve_as_it_stood_earlier_holds_no_later_point() -> None:
    curve = curve_of(table_from_text("training", "rank step loss\n0 1 1\n0 2 2\n0 3 6"), {"planned_steps": 10})

    earlier = curve.upto(2)

    assert earlier.steps.tolist() == [1, 2]
    assert earlier.planned_steps == 10
