"""Charts of devices, kernels, operators, annotations and sequences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import altair as alt
import pandas as pd
import pytest

import perfnb
from perfnb.analyses import (
    annotation_device_time,
    communication_overlap,
    idle_summary,
    kernel_sequences,
    kernel_summary,
    largest,
    largest_annotations,
    largest_operators,
    largest_sequences,
    operator_kernels,
)
from perfnb.charts import svg
from perfnb.charts.device import communication_overlap_chart, device_breakdown_chart, idle_chart
from perfnb.charts.kernels import annotation_chart, kernels_chart, operators_chart, sequences_chart
from perfnb.charts.theme import GROUP_COLOURS
from perfnb.errors import TooManyRows
from perfnb.run import Run

HOSTILE = "</script><img src=x onerror=alert(1)>\x00\x1b[2J\u202e\ufffe\"'&datum.value"
NAN = float("nan")
LONG = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3>>(int)"

Draw = Callable[[pd.DataFrame], alt.LayerChart]
TABLES: dict[str, tuple[Draw, pd.DataFrame, str]] = {
    "breakdown": (
        device_breakdown_chart,
        pd.DataFrame(
            {
                "rank": [0, 1],
                "device": [0, 0],
                "compute_us": [600.0, 300.0],
                "exposed_communication_us": [100.0, 0.0],
                "exposed_copy_us": [50.0, 0.0],
                "idle_us": [250.0, 700.0],
            }
        ),
        "computing 900 us (45 %); exposed communication 100 us (5.0 %); exposed copies 50.0 us (2.5 %); idle 950 us (48 %)",
    ),
    "overlap": (
        communication_overlap_chart,
        pd.DataFrame(
            {
                "rank": [0, 0],
                "device": [0, 1],
                "communication_us": [8.0, 4.0],
                "overlapped_us": [6.0, 0.0],
                "exposed_communication_us": [2.0, 4.0],
            }
        ),
        "hidden behind computing 6.00 us (50 %); exposed 6.00 us (50 %)",
    ),
    "kernels": (
        kernels_chart,
        pd.DataFrame({"kind": ["compute", "copy"], "name": ["gemm", HOSTILE], "total_us": [30.0, 10.0], "share": [0.75, 0.25]}),
        "Largest: gemm 30.0 us (75 %)",
    ),
    "operators": (
        operators_chart,
        pd.DataFrame({"operator": ["aten::mm", HOSTILE], "kernel_us": [30.0, 10.0], "share": [0.75, 0.25]}),
        "Largest: aten::mm 30.0 us (75 %)",
    ),
    "annotations": (
        annotation_chart,
        pd.DataFrame({"annotation": ["forward", HOSTILE], "own_kernel_us": [30.0, 10.0], "own_share": [0.75, 0.25]}),
        "Largest: forward 30.0 us (75 %)",
    ),
    "sequences": (
        sequences_chart,
        pd.DataFrame(
            {"length": 2, "sequence": ["gemm -> relu", f"a -> {HOSTILE}"], "occurrences": [3, 1], "total_us": [30.0, 10.0]}
        ),
        "Largest: gemm -> relu 30.0 us (3 times)",
    ),
}


def data(chart: alt.LayerChart) -> list[dict[str, Any]]:
    """Rows that the chart draws."""
    return next(iter(chart.to_dict()["datasets"].values()))


@pytest.mark.parametrize("name", TABLES)
def test_a_chart_leaves_its_table_alone_and_says_its_largest_values(name: str) -> None:
    draw, frame, words = TABLES[name]
    before = frame.copy(deep=True)

    spec = draw(frame).to_dict()

    pd.testing.assert_frame_equal(frame, before)
    assert words in spec["description"]
    assert draw(frame).to_dict() == spec


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_name_is_text_only_and_no_expression_reaches_the_renderer(name: str) -> None:
    draw, frame, _ = TABLES[name]
    spec = draw(frame).to_dict()

    picture = svg(draw(frame))

    assert set(re.findall(r"<(\w+)", picture)) <= {"svg", "g", "path", "line", "text", "rect", "defs", "clipPath"}
    assert not re.search(r"[\x00-\x1f\u202e\ufffe]", picture + json.dumps(spec, ensure_ascii=False))
    assert not re.search(r'"(href|url|usermeta|expr|transform|labelExpr)":', json.dumps(spec))


@pytest.mark.parametrize("name", TABLES)
def test_more_rows_than_a_chart_may_hold_are_refused_with_what_to_do(name: str) -> None:
    draw, frame, _ = TABLES[name]

    with pytest.raises(TooManyRows, match=r"at most 2,000 rows, this table has 2,002.*: aggregate it with perfnb\."):
        draw(pd.concat([frame] * 1001, ignore_index=True))


def test_the_parts_of_the_bars_count_as_rows() -> None:
    _, frame, _ = TABLES["breakdown"]
    many = pd.concat([frame] * 250, ignore_index=True)

    assert len(data(device_breakdown_chart(many))) == 2000
    with pytest.raises(TooManyRows, match="501 bars of 4 parts"):
        device_breakdown_chart(pd.concat([many, frame.head(1)], ignore_index=True))


def test_each_bar_of_the_breakdown_is_made_of_its_parts_in_order() -> None:
    draw, frame, _ = TABLES["breakdown"]

    drawn = [(row["label"], row["order"], row["part"], row["time"], row["value"]) for row in data(draw(frame))]

    # bars of 1,000 us: the axis is in ms
    assert drawn[0] == ("rank 0", 0, "computing", 0.6, "600 us (60 %)")
    assert drawn[2] == ("rank 0", 1, "exposed communication", 0.1, "100 us (10 %)")
    assert sorted({row[1:3] for row in drawn}) == [
        (0, "computing"),
        (1, "exposed communication"),
        (2, "exposed copies"),
        (3, "idle"),
    ]


@pytest.mark.parametrize(
    ("device", "labels"),
    [
        ([0, 1], ["rank 0 device 0", "rank 0 device 1"]),
        ([-1, 1], ["rank 0 device unknown", "rank 0 device 1"]),
        (pd.array([pd.NA, 1], dtype="Int64"), ["rank 0 device unknown", "rank 0 device 1"]),
    ],
)
def test_devices_are_told_apart_where_a_rank_has_several(device: Any, labels: list[str]) -> None:
    draw, frame, _ = TABLES["overlap"]

    drawn = data(draw(frame.assign(device=device)))

    assert list(dict.fromkeys(row["label"] for row in drawn)) == labels


def test_steps_are_named_and_a_rank_with_one_device_is_not_numbered() -> None:
    draw, frame, _ = TABLES["breakdown"]

    drawn = data(draw(frame.assign(step=[7, 8])))

    assert list(dict.fromkeys(row["label"] for row in drawn)) == ["rank 0 step 7", "rank 1 step 8"]


def test_communication_that_was_not_measured_is_left_out_and_counted() -> None:
    draw, frame, _ = TABLES["overlap"]
    times = ["communication_us", "overlapped_us", "exposed_communication_us"]
    frame = frame.astype(dict.fromkeys(times, "Float64"))
    one, none = frame.copy(), frame.copy()
    one.loc[1, times] = pd.NA
    none.loc[:, times] = pd.NA

    spec = draw(one).to_dict()

    assert {row["label"] for row in data(draw(one))} == {"rank 0"}
    assert "Not measured: 1 of 2 bars" in spec["description"]
    assert "Not measured: 1 of 2 bars" in spec["title"]["subtitle"]
    assert draw(none).to_dict()["title"]["subtitle"].startswith("No communication by device. Not measured: 2 of 2 bars")


def test_a_device_of_no_time_has_no_shares() -> None:
    draw, frame, _ = TABLES["breakdown"]
    parts = ["compute_us", "exposed_communication_us", "exposed_copy_us", "idle_us"]

    drawn = data(draw(frame.assign(**dict.fromkeys(parts, 0.0))))

    assert {row["value"] for row in drawn} == {"0 us (-)"}


def test_causes_of_idle_time_are_added_up_over_devices_the_longest_first() -> None:
    summary = pd.DataFrame({"rank": [0, 0, 1], "device": 0, "cause": ["data", "launch", "launch"], "idle_us": [30.0, 20.0, 50.0]})

    drawn = data(idle_chart(summary))

    assert [(row["label"], row["time"], row["value"], row["colour"]) for row in drawn] == [
        ("launching", 70.0, "70.0 us (70 %)", GROUP_COLOURS["launching"]),
        ("waiting for the DataLoader", 30.0, "30.0 us (30 %)", GROUP_COLOURS["data"]),
    ]


def test_kernels_have_the_colour_of_their_kind_and_what_is_mixed_has_none() -> None:
    kinds = pd.DataFrame(
        {"kind": ["compute", "communication", "memset", pd.NA], "name": list("abcd"), "total_us": 1.0, "share": 0.25}
    )
    _, operators, _ = TABLES["operators"]

    kernels = [row["colour"] for row in data(kernels_chart(kinds))]

    assert kernels == [GROUP_COLOURS[group] for group in ("computing", "communication", "copying", "other")]
    assert {row["colour"] for row in data(operators_chart(operators))} == {GROUP_COLOURS["other"]}


def test_a_long_name_loses_its_namespaces_in_the_label_and_keeps_them_beside_it() -> None:
    frame = pd.DataFrame({"kind": "compute", "name": [LONG, LONG.replace("float", "half")], "total_us": 1.0, "share": 0.5})

    drawn = data(kernels_chart(frame))

    assert all(row["label"].startswith("vectorized_elementwise_kernel<4, ") for row in drawn)
    assert all(row["whole"].startswith("void at::native::vectorized") for row in drawn)
    assert len({row["label"] for row in drawn}) == 2


def test_a_sequence_shows_each_name_once_with_how_often_it_repeats() -> None:
    frame = pd.DataFrame({"length": 3, "sequence": [f"{LONG} -> {LONG} -> gemm"], "occurrences": [4], "total_us": [5.0]})

    drawn = data(sequences_chart(frame))

    assert [(row["label"], row["value"]) for row in drawn] == [("vectorized_elementwise_kernel x 2 -> gemm", "5.00 us (4 times)")]


@pytest.mark.parametrize(
    "chart",
    [
        lambda run: device_breakdown_chart(perfnb.device_breakdown(run)),
        lambda run: communication_overlap_chart(communication_overlap(run)),
        lambda run: idle_chart(idle_summary(run)),
        lambda run: kernels_chart(largest(kernel_summary(run))),
        lambda run: operators_chart(largest_operators(operator_kernels(run))),
        lambda run: annotation_chart(largest_annotations(annotation_device_time(run))),
        lambda run: sequences_chart(largest_sequences(kernel_sequences(run))),
    ],
)
def test_a_run_without_device_ops_gives_a_picture_that_says_so(chart: Callable[[Run], alt.LayerChart]) -> None:
    drawn = chart(Run())

    assert drawn.to_dict()["description"].startswith("No ")
    assert "No " in svg(drawn)


def test_sixty_four_ranks_are_drawn_in_order() -> None:
    draw, frame, _ = TABLES["breakdown"]
    many = pd.concat([frame.head(1).assign(rank=rank) for rank in range(64)], ignore_index=True)

    drawn = draw(many)

    assert list(dict.fromkeys(row["label"] for row in data(drawn))) == [f"rank {rank}" for rank in range(64)]
    assert svg(drawn).count(">rank ") == 64


def test_a_notebook_shows_a_chart_as_a_picture_that_fetches_nothing() -> None:
    chart = kernels_chart(pd.DataFrame({"kind": ["compute"], "name": ["gemm"], "count": [1], "total_us": [5.0], "share": [1.0]}))

    shown = chart._repr_mimebundle_()

    assert set(shown) == {"text/html", "text/plain"}
    assert shown["text/html"].startswith('<div style="margin:6px 0"><img alt="')
    assert "<script" not in shown["text/html"]
    assert "http" not in shown["text/html"].replace("http://www.w3.org/", "")
    assert shown["text/plain"] == chart.description
