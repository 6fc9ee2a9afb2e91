"""Charts of launches, queues, copies, memory, call trees and rooflines: from their tables, safe, described, small."""

from __future__ import annotations

import json
from collections.abc import Callable

import altair as alt
import pandas as pd
import pytest

from perfnb.analyses.roofline import roofline
from perfnb.charts.launch_histogram import launch_histogram_chart
from perfnb.charts.operator_tree import operator_tree_chart
from perfnb.charts.roofline import roofline_chart
from perfnb.charts.static import svg
from perfnb.charts.step_lines import copy_bandwidth_chart, launch_queue_chart, memory_chart
from perfnb.errors import TooManyRows

HOSTILE = "</script><img src=x onerror=alert(1)>\x00\x1b[2J\u202e\ufffe\"'&datum.value"
Draw = Callable[[pd.DataFrame], alt.LayerChart]

_FLOPS = pd.DataFrame(
    {
        "rank": 0,
        "step": 1,
        "operator": [1, 2],
        "name": [HOSTILE, "aten::bmm"],
        "family": "matmul",
        "input_shapes": "[[2,3],[3,5]]",
        "dtype": "float32",
        "flops": pd.array([6000, 600], "Int64"),
        "bytes": pd.array([100, 100], "Int64"),
        "time_us": [2.0, 1.0],
        "clock": "device",
        "achieved_flops_per_s": [3e9, 6e8],
        "flops_per_byte": [60.0, 6.0],
        "reason": None,
    }
)
TABLES: dict[str, tuple[Draw, pd.DataFrame]] = {
    "histogram": (
        launch_histogram_chart,
        pd.DataFrame(
            {
                "rank": [0, 1],
                "measure": ["call", "delay"],
                "low_us": [0.0, 2.0],
                "high_us": [1.0, 4.0],
                "launches": [3, 5],
                "share": 1.0,
            }
        ),
    ),
    "queue": (
        launch_queue_chart,
        pd.DataFrame(
            {
                "rank": 0,
                "device": 0,
                "stream": pd.array([7, 7, None], "Int64"),
                "time_us": [0.0, 5e3, 7e3],
                "length": [1, 4, 2],
                "calls": [1, 1, 1],
            }
        ),
    ),
    "copies": (
        copy_bandwidth_chart,
        pd.DataFrame(
            {
                "rank": 0,
                "device": 0,
                "direction": ["HtoD", None],
                "time_us": [0.0, 5.0],
                "operations": 1,
                "bytes_per_s": [1e9, 2e9],
            }
        ),
    ),
    "memory": (
        memory_chart,
        pd.DataFrame(
            {
                "rank": 0,
                "device": pd.array([0, None], "Int64"),
                "measure": ["allocated", "since_start"],
                "time_us": [0.0, 5.0],
                "bytes": [2**31, 2**20],
            }
        ),
    ),
    "tree": (
        operator_tree_chart,
        pd.DataFrame(
            {
                "rank": 0,
                "thread": "1",
                "name": [HOSTILE, "aten::mm"],
                "path": [HOSTILE, HOSTILE + " > aten::mm"],
                "calls": [1, 2],
                "depth": [0, 1],
                "start_us": [0.0, 0.0],
                "end_us": [5e3, 2e3],
                "total_us": [5e3, 2e3],
                "self_us": [3e3, 2e3],
                "device_us": [0.0, 7.0],
                "share": [1.0, 0.4],
            }
        ),
    ),
    "roofline": (roofline_chart, roofline(_FLOPS, 1e10, 1e8)),
}


@pytest.fixture(params=TABLES)
def drawn(request: pytest.FixtureRequest) -> tuple[Draw, pd.DataFrame]:
    """Each chart with a small table for it."""
    return TABLES[request.param]


def test_every_chart_draws_its_table_and_no_name_breaks_out(drawn: tuple[Draw, pd.DataFrame]) -> None:
    draw, table = drawn

    picture = svg(draw(table))

    assert picture.lstrip().startswith("<svg")
    assert "<img" not in picture
    assert "\x1b" not in picture


def test_every_chart_describes_itself_in_words(drawn: tuple[Draw, pd.DataFrame]) -> None:
    draw, table = drawn

    spec = json.loads(draw(table).to_json())

    assert len(spec["description"]) > 30
    assert spec["title"]["text"]
    assert "nan" not in spec["description"].lower().replace("nano", "")


def test_every_chart_of_an_empty_table_says_that_there_is_nothing(drawn: tuple[Draw, pd.DataFrame]) -> None:
    draw, table = drawn

    chart = draw(table.iloc[:0])

    assert svg(chart)
    assert "no" in json.loads(chart.to_json())["description"].lower()


def test_every_chart_refuses_more_rows_than_it_can_draw(drawn: tuple[Draw, pd.DataFrame]) -> None:
    draw, table = drawn
    many = pd.concat([table.head(1)] * 2001, ignore_index=True)
    if "low_us" in many:
        many = many.assign(low_us=[float(number) for number in range(2001)])

    with pytest.raises(TooManyRows):
        draw(many)


def test_lines_name_only_what_tells_them_apart_and_unknown_streams() -> None:
    spec = json.loads(launch_queue_chart(TABLES["queue"][1]).to_json())

    names = {row["line"] for rows in spec["datasets"].values() for row in rows}
    assert names == {"stream 7", "stream unknown"}
    assert "stream 7 4 ops" in spec["description"]


def test_memory_is_drawn_in_the_unit_that_suits_its_peak() -> None:
    spec = json.loads(memory_chart(TABLES["memory"][1]).to_json())

    points = {row["line"]: row["value"] for rows in spec["datasets"].values() for row in rows}
    assert points == {"device 0, allocated": 2.0, "host, since start": 2**-10}
    assert "2.00 GiB" in spec["description"]


def test_the_roof_bends_at_the_ridge() -> None:
    spec = json.loads(roofline_chart(TABLES["roofline"][1]).to_json())

    roof = next(rows for rows in spec["datasets"].values() if "roof" in rows[0])
    assert [(row["flops_per_byte"], row["rate"]) for row in roof] == [(3.0, 3e-4), (100.0, 0.01), (200.0, 0.01)]
