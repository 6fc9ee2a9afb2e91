"""Device time by annotation: numbers by hand, and those of plain loops on real traces."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perfnb.analyses.annotation_device_time import ANNOTATION_COLUMNS, annotation_device_time, largest_annotations
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import table_from_text

HOST = table_from_text(
    "host_ops",
    """rank process thread category   name       start_us duration_us correlation
    0    1       1      annotation step       0        100         -
    0    1       1      annotation block      10       40          -
    0    1       1      annotation block      12       20          -
    0    1       1      runtime    cudaLaunch 15       2           1
    0    1       1      runtime    cudaLaunch 40       2           2
    0    1       1      runtime    graph      80       2           3
    0    1       1      annotation idle       90       5           -
    0    1       1      runtime    cudaLaunch 120      2           4
    1    1       1      annotation step       0        50          -
    1    1       1      runtime    cudaLaunch 5        2           1""",
)
OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name start_us duration_us correlation
    0    0      7      compute a    20       10          1
    0    0      7      compute b    50       20          2
    0    0      7      compute c    130      5           3
    0    0      7      compute d    136      5           3
    0    0      7      compute e    150      6           4
    0    0      7      compute lost 160      4           99
    1    0      7      compute a    9        8           1""",
)
STEPS = table_from_text("steps", "rank step start_us duration_us\n0 3 0 30\n0 4 30 70\n1 3 0 50")
RUN = Run(host_ops=HOST, device_ops=OPS, steps=STEPS)
BACKWARD = table_from_text(
    "host_ops",
    """rank process thread category   name                      start_us duration_us correlation
    0    1       1      annotation step                      0        100         -
    0    1       1      annotation backward                  20       50          -
    0    1       2      operator   autograd::engine::a       25       30          -
    0    1       2      runtime    cudaLaunch                30       2           1
    0    1       2      annotation nccl:all_reduce           40       9           -
    0    1       2      runtime    cudaLaunch                42       2           2
    0    1       3      operator   aten::copy_               28       30          -
    0    1       3      runtime    cudaMemcpyAsync           33       2           3
    0    1       2      runtime    cudaLaunch                110      2           4
    0    9       1      annotation other_process             0        200         -""",
)
BACKWARD_OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name start_us duration_us correlation
    0    0      7      compute grad 40       10          1
    0    0      8      compute nccl 50       20          2
    0    0      9      copy    HtoD 45       4           3
    0    0      7      compute late 120      1           4""",
)
SMALL = [
    "traces/hta/alexnet/benchmark_result_2869224_1695835535_trace.json.gz",
    "traces/hta/amd_trace/mi250_minitoy_train_ROCm6_2_kineto.json.gz",
    "traces/hta/sampled_2_of_128",
    "traces/tracelens/b200_eager/eager_trace.json.gz",
    "traces/tracelens/mi210_gpu_only/gpu_only_trace.json.gz",
]


def rows(frame: pd.DataFrame, *columns: str) -> list[list[Any]]:
    return [[None if pd.isna(value) else value for value in row] for row in frame[list(columns)].to_numpy(dtype=object)]


def test_an_annotation_holds_what_was_launched_inside_and_owns_what_no_inner_one_encloses() -> None:
    found = annotation_device_time(RUN)

    columns = ("rank", "annotation", "ranges", "kernels", "kernel_us", "share", "own_kernels", "own_kernel_us", "own_share")
    assert rows(found, *columns) == [
        [0, "step", 1, 4, 40.0, 0.8, 2, 10.0, 0.2],  # its own: the two ops of one graph
        [0, "block", 2, 2, 30.0, 0.6, 2, 30.0, 0.6],  # the op inside both blocks counts once
        [0, None, None, 2, 10.0, 0.2, 2, 10.0, 0.2],  # outside, and a launch that was not recorded
        [0, "idle", 1, 0, 0.0, 0.0, 0, 0.0, 0.0],
        [1, "step", 1, 1, 8.0, 1.0, 1, 8.0, 1.0],
    ]


def test_by_step_the_step_is_that_of_the_launch() -> None:
    found = annotation_device_time(RUN, by="step")

    assert rows(found, "rank", "step", "annotation", "ranges", "kernel_us", "share", "own_kernel_us") == [
        [0, 3, "step", 1, 10.0, 1.0, 0.0],
        [0, 3, "block", 2, 10.0, 1.0, 10.0],
        [0, 4, "step", 0, 30.0, 1.0, 10.0],
        [0, 4, "block", 0, 20.0, pytest.approx(2 / 3), 20.0],
        [0, 4, "idle", 1, 0.0, 0.0, 0.0],
        [0, None, None, None, 10.0, 1.0, 10.0],
        [1, 3, "step", 1, 8.0, 1.0, 8.0],
    ]


def test_what_the_backward_thread_launches_counts_for_the_range_that_its_caller_is_in() -> None:
    found = annotation_device_time(Run(host_ops=BACKWARD, device_ops=BACKWARD_OPS))

    assert rows(found, "annotation", "kernel_us", "own_kernel_us") == [
        ["step", 30.0, 0.0],
        ["backward", 30.0, 10.0],
        ["nccl:all_reduce", 20.0, 20.0],
        [None, 5.0, 5.0],  # a thread that runs no backward, and a launch after the caller's ranges
        ["other_process", 0.0, 0.0],
    ]


def test_where_two_threads_are_in_a_range_no_caller_of_the_backward_is_guessed() -> None:
    second = table_from_text(
        "host_ops", "rank process thread category name start_us duration_us\n0 1 4 annotation evaluation 0 100"
    )
    host = pd.concat([BACKWARD.astype({"name": "object"}), second.astype({"name": "object"})], ignore_index=True)
    both = host.astype(dict.fromkeys(("process", "thread", "category", "name"), "category"))

    found = annotation_device_time(Run(host_ops=both, device_ops=BACKWARD_OPS)).set_index("annotation")["kernel_us"]

    assert found[["step", "backward", "evaluation", "nccl:all_reduce"]].to_list() == [0.0, 0.0, 0.0, 20.0]


def test_without_host_rows_nothing_is_in_an_annotation() -> None:
    found = annotation_device_time(Run(device_ops=OPS))

    assert rows(found, "rank", "annotation", "own_kernel_us", "own_share") == [[0, None, 50.0, 1.0], [1, None, 8.0, 1.0]]


@pytest.mark.parametrize(("by", "keys"), [("run", ["rank", "annotation"]), ("step", ["rank", "step", "annotation"])])
def test_a_run_without_device_ops_gives_an_empty_table_of_the_same_columns(by: Any, keys: list[str]) -> None:
    found = annotation_device_time(Run(host_ops=HOST, steps=STEPS), by=by)

    assert found.empty
    assert list(found) == list(annotation_device_time(RUN, by=by)) == [*keys, *ANNOTATION_COLUMNS]


def test_an_unknown_grouping_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PerfnbError, match="use 'run' or 'step'"):
        annotation_device_time(RUN, by="kernel")  # type: ignore[arg-type]


def test_hostile_names_are_kept_as_they_are() -> None:
    name = "</script>\x1b[2J\u202e"
    host = HOST.assign(name=HOST["name"].astype("string").replace("block", name).astype("category"))

    found = annotation_device_time(Run(host_ops=host, device_ops=OPS))

    assert name in found["annotation"].to_list()


def test_the_largest_annotations_add_up_ranks_and_keep_the_rest_as_one_row() -> None:
    found = largest_annotations(annotation_device_time(RUN), 2)

    assert rows(found, "annotation", "annotations", "own_kernels", "own_kernel_us") == [
        ["block", 1, 2, 30.0],
        ["step", 1, 3, 18.0],
        ["the rest", 1, 2, 10.0],
    ]
    assert found["own_share"].sum() == pytest.approx(1.0)
    assert largest_annotations(annotation_device_time(Run())).empty


def ns(us: float) -> int:
    return round(us * 1000)


def thread_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["rank"], row["process"], row["thread"]


def around(ranges: list[dict[str, Any]], low: int, high: int) -> list[dict[str, Any]]:
    """Ranges that hold [low, high]."""
    return [row for row in ranges if ns(row["start_us"]) <= low and high <= ns(row["start_us"]) + ns(row["duration_us"])]


@pytest.mark.corpus
@pytest.mark.parametrize("name", SMALL)
def test_a_real_trace_gives_what_plain_loops_give(corpus: Path, name: str) -> None:
    run = read_kineto(corpus / name)
    calls: dict[Any, dict[str, Any]] = {}
    ranges: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    engine = set()
    for row in run.host_ops.to_dict("records"):
        if row["category"] == "runtime" and not pd.isna(row["correlation"]):
            calls.setdefault((row["rank"], row["correlation"]), row)
        if row["category"] == "annotation":
            ranges[thread_of(row)].append(row)
        if "autograd::" in row["name"]:
            engine.add(thread_of(row))
    found_around = {}
    for key, call in calls.items():
        low = ns(call["start_us"])
        found_around[key] = around(ranges[thread_of(call)], low, low + ns(call["duration_us"]))
    launching = {(op["rank"], op["correlation"]) for op in run.device_ops.dropna(subset="correlation").to_dict("records")}
    adrift = {thread_of(calls[key]) for key in launching & set(calls) if not found_around[key]} & engine
    inclusive: dict[Any, float] = defaultdict(float)
    for op in run.device_ops.to_dict("records"):
        key = (op["rank"], op["correlation"])
        names = set()
        if not pd.isna(op["correlation"]) and key in calls:
            call, inside = calls[key], found_around[key]
            names = {row["name"] for row in inside}
            if thread_of(call) in adrift:
                outermost = min([*inside, call], key=lambda row: row["start_us"])
                low = ns(outermost["start_us"])
                others = [
                    around(own, low, low)
                    for thread, own in ranges.items()
                    if thread[:2] == thread_of(call)[:2] and thread not in adrift and around(own, low, low)
                ]
                names |= {row["name"] for row in others[0]} if len(others) == 1 else set()
        for each in names or {None}:
            inclusive[op["rank"], each] += op["duration_us"]

    found = annotation_device_time(run)

    shown = {(row[0], row[1]): row[2] for row in rows(found[found["kernels"].gt(0)], "rank", "annotation", "kernel_us")}
    assert shown == pytest.approx(dict(inclusive))


@pytest.mark.corpus
@pytest.mark.parametrize("by", ["run", "step"])
@pytest.mark.parametrize("name", [*SMALL, "traces/hta/trace_diff/control.json.gz"])
def test_own_times_of_a_real_trace_sum_to_the_device_time(corpus: Path, name: str, by: Any) -> None:
    run = read_kineto(corpus / name)

    found = annotation_device_time(run, by=by)

    assert found.groupby("rank")["own_kernel_us"].sum().to_dict() == pytest.approx(
        run.device_ops.groupby("rank")["duration_us"].sum().to_dict()
    )
    assert found["own_kernels"].sum() == len(run.device_ops)


@pytest.mark.corpus
def test_a_real_backward_lies_in_the_range_of_its_caller(corpus: Path) -> None:
    run = read_kineto(corpus / "traces/hta/trace_diff/control.json.gz")

    found = annotation_device_time(run).set_index("annotation")

    # the backward thread launches 6,102 of 9,450 ops; its caller is in `## backward ##` all the while
    assert found.loc["## backward ##", "kernels"] == 6138
    assert not found.index.isna().any()
