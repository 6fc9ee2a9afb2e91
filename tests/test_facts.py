"""The tables behind the charts, on runs small enough to work out by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from perfnb.errors import NoStepsError
from perfnb.facts import MOST_ROWS, breakdown, impact, step_timeline
from perfnb.prediction import Prediction, Unknown
from perfnb.run import Run
from perfnb.tables import table_from_text

STEPS = "rank step start_us duration_us\n0 7 100 400"


def test_parts_are_named_and_sorted_and_small_ones_are_one_row() -> None:
    parts = pd.DataFrame(
        {
            "part": ["compute", "idle.sync", "idle.python", "idle.launch"],
            "time_us": [600.0, 396.0, 3.0, 1.0],
            "share": [0.6, 0.396, 0.003, 0.001],
        }
    )

    table = breakdown(parts)

    assert table["label"].to_list() == ["Computing", "Idle: host waits for the device", "2 others"]
    assert table["time_us"].to_list() == [600.0, 396.0, 4.0]


def test_a_single_small_part_keeps_its_name() -> None:
    parts = pd.DataFrame({"part": ["forward.wall", "other.wall"], "time_us": [99.9, 0.1], "share": [0.999, 0.001]})

    assert breakdown(parts)["label"].to_list() == ["Forward", "Other Python"]


def test_a_part_that_is_not_known_keeps_its_own_name() -> None:
    parts = pd.DataFrame({"part": ["data.runqueue", "novel"], "time_us": [60.0, 40.0], "share": [0.6, 0.4]})

    assert breakdown(parts)["label"].to_list() == ["Waiting for data, waiting for a core", "novel"]


def test_a_run_without_parts_has_an_empty_table() -> None:
    assert breakdown(pd.DataFrame()).empty


def test_the_timeline_covers_exactly_what_ran_in_the_step() -> None:
    run = Run(
        steps=table_from_text("steps", STEPS),
        device_ops=table_from_text(
            "device_ops", "rank kind name start_us duration_us\n0 compute gemm 50 150\n0 copy HtoD 200 100"
        ),
        host_ops=table_from_text(
            "host_ops",
            """rank category   name                                         start_us duration_us
               0    annotation "enumerate(DataLoader)#x.__next__"           150      100
               0    operator   aten::mm                                     250      400""",
        ),
    )

    timeline = step_timeline(run, 0, 7)

    busy = (timeline["end_us"] - timeline["start_us"]) * timeline["busy_share"]
    # by hand: compute 100-200, copy 200-300, loader 150-250, operator 250-500 of a step from 100 to 500
    assert busy.groupby(timeline["lane"]).sum().round(6).to_dict() == {
        "Device: computing": 100.0,
        "Device: copies": 100.0,
        "Host: operators": 250.0,
        "Host: waiting for data": 100.0,
    }
    assert timeline["start_us"].min() == 0.0
    assert timeline["end_us"].max() == pytest.approx(400.0)


def test_a_timeline_of_very_many_events_stays_below_the_limit_of_a_chart() -> None:
    rows = "\n".join(
        f"0 {kind} k {100 + 0.4 * number} 0.2" for number in range(1000) for kind in ("compute", "communication", "copy")
    )
    ops = table_from_text("device_ops", f"rank kind name start_us duration_us\n{rows}")

    timeline = step_timeline(Run(steps=table_from_text("steps", STEPS), device_ops=ops), 0, 7)

    busy = ((timeline["end_us"] - timeline["start_us"]) * timeline["busy_share"]).groupby(timeline["lane"]).sum()
    assert len(timeline) <= MOST_ROWS
    assert busy["Device: computing"] == pytest.approx(200.0)


def test_a_step_that_is_not_there_is_answered_with_those_that_are() -> None:
    run = Run(steps=table_from_text("steps", STEPS))

    with pytest.raises(NoStepsError, match="rank 0 has no step 8: its steps are 7 to 7"):
        step_timeline(run, 0, 8)
    with pytest.raises(NoStepsError, match="rank 3 has no step 7"):
        step_timeline(run, 3, 7)


def test_predictions_stand_side_by_side_and_unknown_ones_have_no_numbers() -> None:
    table = impact({"4 workers": Prediction("step_us", 100.0, 50.0, 40.0, 60.0, "prior"), "cache": Unknown("a", "b")})

    assert table["speedup"].iloc[0] == 2.0
    assert table.loc[1, ["before_us", "after_us", "low_us", "high_us", "speedup"]].isna().all()
    assert table["verdict"].to_list() == ["faster", "unknown"]
