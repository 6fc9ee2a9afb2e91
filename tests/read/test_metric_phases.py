"""Phases that a log times in some rows only, or with times that cannot be: shares rest on what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from perfnb import diagnose
from perfnb.errors import LogFormatError, NoStepsError
from perfnb.ledger import step_ledger, used_steps
from perfnb.read.metrics import read_metrics
from perfnb.run import Run

STEPS = 40


def logged(data: list[float | None], **more: Any) -> Run:
    return read_metrics({"step": range(len(data)), "step_time_ms": [100.0] * len(data), "data_loading_time_ms": data, **more})


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize(("first", "used"), [(0, [10, 20, 30]), (9, [9, 19, 29, 39])])
def test_shares_of_a_phase_that_is_timed_in_every_tenth_step_are_of_those_steps(
    missing: float | None, first: int, used: list[int]
) -> None:
    run = logged([60.0 if step % 10 == first else missing for step in range(STEPS)])

    found = diagnose(run).found[0]

    assert (found.detector, found.severity) == ("data_stall", pytest.approx(0.6))
    assert used_steps(run)["step"].to_list() == used
    assert "36 of 40 rows lack data_loading_time_ms: shares are of the others" in run.notes


def test_a_phase_that_rows_do_not_name_is_as_one_without_a_value() -> None:
    rows = [{"step": step, "step_time_ms": 100.0} | ({"data_time_ms": 60.0} if step % 10 == 9 else {}) for step in range(STEPS)]

    run = read_metrics(rows)

    assert used_steps(run)["step"].to_list() == [9, 19, 29, 39]
    assert "36 of 40 rows lack data_time_ms: shares are of the others" in run.notes


def test_a_first_step_that_alone_has_phases_is_used() -> None:
    run = logged([60.0, *[None] * 9])

    assert used_steps(run)["step"].to_list() == [0]


def test_a_rank_that_times_no_phases_is_left_out_of_shares() -> None:
    run = read_metrics(
        [
            {"rank": rank, "step": step, "step_time_ms": 100.0, "data_loading_time_ms": 60.0 if rank == 0 else None}
            for rank in range(2)
            for step in range(10)
        ]
    )

    assert diagnose(run).found[0].severity == pytest.approx(0.6)
    assert "10 of 20 rows lack data_loading_time_ms: shares are of the others" in run.notes


def test_phases_that_no_step_has_together_are_missing_and_that_is_said() -> None:
    run = logged([60.0, None] * 5, forward_time_ms=[None, 30.0] * 5)

    assert run.phases.empty
    assert run.missing["loader"] == run.missing["phases"]
    assert run.missing["phases"] == (
        "no row has a time for each of its phases (data_loading_time_ms, forward_time_ms): log all of them in the same steps, or "
        "fewer"
    )


def test_rows_that_lack_phases_do_not_hide_phases_in_another_unit() -> None:
    with pytest.raises(LogFormatError, match=r"longer than their step in 100 % of 4 rows"):
        logged([600.0 if step % 10 == 9 else None for step in range(STEPS)])


def test_negative_and_infinite_times_are_missing_and_counted() -> None:
    run = logged([60.0, 60.0, -1.0, float("inf"), 60.0])

    assert used_steps(run)["step"].to_list() == [1, 4]
    assert step_ledger(run).groupby("step")["time_us"].sum().to_list() == pytest.approx([1e5] * 5)
    assert "data_loading_time_ms: 2 rows with a negative or infinite time, which is read as missing" in run.notes
    assert "2 of 5 rows lack data_loading_time_ms: shares are of the others" in run.notes


@pytest.mark.parametrize(
    ("value", "why"),
    [(float("nan"), ""), (float("inf"), ", and 3 rows with a negative or infinite one"), (-5.0, ", and 3 rows with a negative")],
)
def test_a_phase_without_any_time_is_not_measured(value: float, why: str) -> None:
    alone = logged([value] * 3)
    beside = logged([value] * 3, forward_time_ms=[30.0] * 3)

    for run, name in ((alone, "phases"), (beside, "phases.data")):
        assert run.missing[name].startswith(f"data_loading_time_ms has no time of 0 or more in any step{why}")
        assert run.missing["loader"] in run.notes
        assert "loader" not in run.signals
    assert beside.phases["phase"].cat.categories.to_list() == ["forward", "other"]
    with pytest.raises(NoStepsError, match="no host ledger: data_loading_time_ms has no time of 0 or more"):
        step_ledger(alone)
