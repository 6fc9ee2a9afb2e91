"""Charts of arrivals, stragglers, clocks, bandwidth and comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable

import altair as alt
import pandas as pd
import pytest

from perfnb.charts.bandwidth import bus_bandwidth_chart
from perfnb.charts.clocks import clocks_chart
from perfnb.charts.compare import compare_chart
from perfnb.charts.stragglers import arrivals_chart, stragglers_chart
from perfnb.charts.theme import INK
from perfnb.errors import TooManyRows

HOSTILE = "</script>\x00\x1b[2J\u202e"
NAN = float("nan")

TABLES: dict[str, tuple[Callable[[pd.DataFrame], alt.LayerChart], pd.DataFrame, str]] = {
    "stragglers": (
        stragglers_chart,
        pd.DataFrame({"rank": [0, 1], "steps": 4, "caused_us": [0.0, 4000.0], "caused_share": [0.0, 1.0]}),
        "rank 1 4.00 ms (100 %)",
    ),
    "arrivals": (
        arrivals_chart,
        pd.DataFrame({"call": [3, 3], "rank": [0, 1], "collective": HOSTILE, "wait_us": [2000.0, 0.0], "last_rank": [1, 1]}),
        "rank 0 2.00 ms",
    ),
    "clocks": (clocks_chart, pd.DataFrame({"rank": [0, 1], "offset_us": [-3.0, 5.0]}), "rank 1 5.00 us; rank 0 -3.00 us"),
    "bandwidth": (
        bus_bandwidth_chart,
        pd.DataFrame(
            {
                "collective": [HOSTILE, "all_reduce"],
                "size_class": [4096.0, 8192.0],
                "group_size": pd.array([8, 8], dtype="Int64"),
                "calls": [3, 1],
                "bus_bytes_per_s": [2e9, 3e9],
                "is_lower_bound": [False, True],
                "reachable_bytes_per_s": [4e9, NAN],
                "reached_share": [0.5, NAN],
            }
        ),
        "all_reduce 8.00 KiB x 8 >= 3 GB/s (-)",
    ),
    "compare": (
        compare_chart,
        pd.DataFrame(
            {
                "name": ["gemm", HOSTILE],
                "change": ["slower", "unclear"],
                "difference_us": [30.0, -10.0],
                "low_us": [20.0, NAN],
                "high_us": [40.0, NAN],
            }
        ),
        "gemm 30.0 us (slower)",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_chart_leaves_its_table_alone_and_describes_itself(name: str) -> None:
    draw, frame, words = TABLES[name]
    before = frame.copy(deep=True)

    spec = draw(frame).to_dict()

    pd.testing.assert_frame_equal(frame, before)
    assert words in spec["description"]
    assert "\x00" not in json.dumps(spec, ensure_ascii=False)
    assert INK in json.dumps(spec)


@pytest.mark.parametrize("name", TABLES)
def test_a_chart_of_no_rows_is_drawn(name: str) -> None:
    draw, frame, _ = TABLES[name]

    assert draw(frame.iloc[:0]).to_dict()["layer"]


@pytest.mark.parametrize("name", TABLES)
def test_too_many_rows_name_the_function_that_aggregates(name: str) -> None:
    draw, frame, _ = TABLES[name]

    with pytest.raises(TooManyRows, match="aggregate it with"):
        draw(pd.concat([frame] * 1001, ignore_index=True))


def test_slower_and_faster_have_their_colours_and_what_is_unclear_has_none() -> None:
    _, frame, _ = TABLES["compare"]

    sure = json.dumps(compare_chart(frame.assign(change="slower", difference_us=[5.0, -5.0])).to_dict())
    unsure = json.dumps(compare_chart(frame.assign(change="unclear")).to_dict())

    assert "#D55E00" in sure
    assert "#0072B2" in sure
    assert "#D55E00" not in unsure
