"""Device time by operator: numbers by hand, and those of plain loops on real traces."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb.analyses.operator_kernels import OPERATOR_COLUMNS, largest_operators, operator_kernels
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import table_from_text

HOST = table_from_text(
    "host_ops",
    """rank process thread category name            start_us duration_us correlation
    0    1       1      operator linear          0        100         -
    0    1       1      operator addmm           10       40          -
    0    1       1      runtime  cudaLaunch      20       2           1
    0    1       1      runtime  cudaLaunch      30       2           2
    0    1       1      runtime  cudaMemcpyAsync 60       2           4
    0    1       1      operator addmm           110      40          -
    0    1       1      runtime  cudaLaunch      130      2           3
    0    1       1      runtime  cudaGraphLaunch 210      2           5
    0    1       2      operator other_thread    0        400         -
    1    1       1      operator mul             0        10          -
    1    1       1      runtime  cudaLaunch      4        1           1
    1    1       1      operator launches_none   20       10          -""",
)
OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name start_us duration_us correlation
    0    0      7      compute gemm 25       10          1
    0    0      7      compute relu 40       2           2
    0    0      7      compute gemm 136      12          3
    0    0      7      copy    HtoD 70       6           4
    0    0      7      compute g1   220      4           5
    0    0      7      compute g2   224      6           5
    0    0      7      compute lost 300      10          99
    1    0      7      compute muls 5        3           1""",
)
RUN = Run(host_ops=HOST, device_ops=OPS)
SMALL = [
    "traces/hta/alexnet/benchmark_result_2869224_1695835535_trace.json.gz",
    "traces/hta/amd_trace/mi250_minitoy_train_ROCm6_2_kineto.json.gz",
    "traces/tracelens/mi300x_torch_compile_triton/trace.json.gz",
    "traces/tracelens/mi210_gpu_only/gpu_only_trace.json.gz",
    "traces/hta/sampled_2_of_128",
]


def rows(frame: pd.DataFrame, *columns: str) -> list[list[Any]]:
    return [[None if pd.isna(value) else value for value in row] for row in frame[list(columns)].to_numpy(dtype=object)]


def test_an_op_counts_for_the_innermost_operator_around_its_launch() -> None:
    found = operator_kernels(RUN)

    assert rows(found, "rank", "operator", "calls", "kernels", "kernel_us", "mean_us", "share") == [
        [0, "addmm", 2, 3, 24.0, 8.0, 0.48],
        [0, None, None, 3, 20.0, pytest.approx(20 / 3), 0.4],
        [0, "linear", 1, 1, 6.0, 6.0, 0.12],
        [1, "mul", 1, 1, 3.0, 3.0, 1.0],
    ]


def test_delays_are_to_the_launch_and_from_there_to_the_device() -> None:
    found = operator_kernels(RUN)

    # addmm: launches 20 - 10 and 130 - 110 into the call; delays 25 - 20, 40 - 30, 136 - 130
    assert rows(found, "operator", "median_launch_us", "median_delay_us", "longest_delay_us") == [
        ["addmm", 15.0, 6.0, 10.0],
        [None, None, 10.0, 10.0],  # of the graph only the first op: the second waits for the first
        ["linear", 60.0, 10.0, 10.0],
        ["mul", 4.0, 1.0, 1.0],
    ]


def test_by_kernel_there_is_a_row_for_each_name_that_an_operator_launched() -> None:
    found = operator_kernels(RUN, by="kernel")

    columns = ("operator", "kernel", "calls", "kernels", "kernel_us", "median_launch_us", "median_delay_us")
    assert rows(found[found["rank"].eq(0)], *columns) == [
        ["addmm", "gemm", 2, 2, 22.0, 15.0, 5.5],
        [None, "lost", None, 1, 10.0, None, None],
        ["linear", "HtoD", 1, 1, 6.0, 60.0, 10.0],
        [None, "g2", None, 1, 6.0, None, None],
        [None, "g1", None, 1, 4.0, None, 10.0],
        ["addmm", "relu", 1, 1, 2.0, 20.0, 10.0],
    ]


def test_by_sequence_there_is_a_row_for_each_list_of_kernels_that_one_call_launched() -> None:
    found = operator_kernels(RUN, by="sequence")

    assert sorted(rows(found[found["operator"].notna()], "operator", "sequence", "calls", "kernels", "kernel_us")) == [
        ["addmm", "gemm", 1, 1, 12.0],
        ["addmm", "gemm -> relu", 1, 2, 12.0],
        ["linear", "HtoD", 1, 1, 6.0],
        ["mul", "muls", 1, 1, 3.0],
    ]
    assert found.loc[found["operator"].isna(), ["kernels", "kernel_us"]].to_numpy().tolist() == [[3.0, 20.0]]


def test_a_sequence_is_in_the_order_of_the_launches_and_of_a_graphs_ops() -> None:
    host = table_from_text(
        "host_ops",
        """rank process thread category name       start_us duration_us correlation
        0    1       1      operator replay     0        50          -
        0    1       1      runtime  cudaLaunch 10       2           1
        0    1       1      runtime  graph      20       2           2""",
    )
    ops = table_from_text(
        "device_ops",
        """rank device stream kind    name  start_us duration_us correlation
        0    0      7      compute third 40       1           2
        0    0      7      compute second 30      1           2
        0    0      8      compute first 60       1           1""",
    )

    found = operator_kernels(Run(host_ops=host, device_ops=ops), by="sequence")

    assert rows(found, "sequence", "calls", "median_launch_us") == [["first -> second -> third", 1, 10.0]]


def test_where_the_clocks_disagree_no_delay_is_given() -> None:
    early = OPS.assign(start_us=OPS["start_us"].mask(OPS["name"].eq("muls"), 2.0))  # before its launch at 4

    found = operator_kernels(Run(host_ops=HOST, device_ops=early)).set_index(["rank", "operator"])

    assert np.isnan(found.loc[(1, "mul"), "median_delay_us"])
    assert found.loc[(0, "addmm"), "median_delay_us"] == 6.0
    assert found.loc[(1, "mul"), "median_launch_us"] == 4.0  # both on the host's clock


def test_ops_without_host_rows_are_one_row_without_operator() -> None:
    found = operator_kernels(Run(device_ops=OPS))

    assert rows(found, "rank", "operator", "kernels", "kernel_us", "median_delay_us") == [
        [0, None, 7, 50.0, None],
        [1, None, 1, 3.0, None],
    ]


@pytest.mark.parametrize("by", ["operator", "kernel", "sequence"])
def test_a_run_without_device_ops_gives_an_empty_table_of_the_same_columns(by: Any) -> None:
    empty, full = operator_kernels(Run(host_ops=HOST), by=by), operator_kernels(RUN, by=by)

    assert empty.empty
    assert list(empty) == list(full)
    assert list(full)[-len(OPERATOR_COLUMNS) :] == list(OPERATOR_COLUMNS)
    assert empty["kernel_us"].dtype == full["kernel_us"].dtype == "float64"


def test_ops_of_no_duration_have_no_share() -> None:
    found = operator_kernels(Run(host_ops=HOST, device_ops=OPS.assign(duration_us=0.0)))

    assert found["kernel_us"].sum() == 0
    assert found["share"].isna().all()


def test_an_unknown_grouping_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PerfnbError, match="use 'operator', 'kernel' or 'sequence'"):
        operator_kernels(RUN, by="name")  # type: ignore[arg-type]


def test_hostile_names_are_kept_as_they_are() -> None:
    name = "</script>\x1b[2J\u202e -> 'x'"
    host = HOST.assign(name=HOST["name"].astype("string").replace("addmm", name).astype("category"))
    ops = OPS.assign(name=OPS["name"].astype("string").replace("gemm", name).astype("category"))

    found = operator_kernels(Run(host_ops=host, device_ops=ops), by="kernel")

    assert rows(found, "operator", "kernel")[0] == [name, name]


def test_the_largest_operators_add_up_ranks_and_keep_the_rest_as_one_row() -> None:
    found = largest_operators(operator_kernels(RUN), 2)

    assert rows(found, "operator", "operators", "kernels", "kernel_us") == [
        ["addmm", 1, 3, 24.0],
        ["no operator", 1, 3, 20.0],
        ["the rest", 2, 2, 9.0],
    ]
    assert found["share"].sum() == pytest.approx(1.0)
    assert largest_operators(operator_kernels(Run())).empty


def launched(run: Run) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None, tuple[int, dict[str, Any]] | None]]:
    """Each device op with its launch call and the number and row of its operator, found by looking at every host row."""
    calls: dict[Any, dict[str, Any]] = {}
    operators = defaultdict(list)
    for number, row in enumerate(run.host_ops.to_dict("records")):
        if row["category"] == "runtime" and not pd.isna(row["correlation"]):
            calls.setdefault((row["rank"], row["correlation"]), row)
        if row["category"] == "operator":
            operators[row["rank"], row["process"], row["thread"]].append((number, row))
    for op in run.device_ops.to_dict("records"):
        call = None if pd.isna(op["correlation"]) else calls.get((op["rank"], op["correlation"]))
        around = []
        if call is not None:
            low, high = ns(call["start_us"]), ns(call["start_us"]) + ns(call["duration_us"])
            for number, row in operators[call["rank"], call["process"], call["thread"]]:
                start = ns(row["start_us"])
                if start <= low and high <= start + ns(row["duration_us"]):
                    around.append((start, -ns(row["duration_us"]), number, row))
        yield op, call, max(around, key=lambda each: each[:3])[2:] if around else None


def ns(us: float) -> int:
    return round(us * 1000)


@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.parametrize("name", SMALL)
def test_a_real_trace_gives_what_plain_loops_give(corpus: Path, name: str) -> None:
    run = read_kineto(corpus / name)
    us: dict[Any, list[float]] = defaultdict(list)
    launch: dict[Any, dict[int, float]] = defaultdict(dict)
    for op, call, operator in launched(run):
        key = (op["rank"], operator[1]["name"] if operator else None)
        us[key].append(op["duration_us"])
        if operator and call:
            begun = call["start_us"] - operator[1]["start_us"]
            launch[key][operator[0]] = min(begun, launch[key].get(operator[0], begun))

    found = operator_kernels(run)

    assert len(found) == len(us)
    for row in found.to_dict("records"):
        key = (row["rank"], None if pd.isna(row["operator"]) else row["operator"])
        assert (row["kernels"], row["kernel_us"]) == (len(us[key]), pytest.approx(sum(us[key])))
        if key[1] is not None:
            assert row["calls"] == len(launch[key])
            assert row["median_launch_us"] == pytest.approx(median(launch[key].values()))


@pytest.mark.corpus
@pytest.mark.no_cover
@pytest.mark.parametrize("name", SMALL)
def test_the_sequences_of_a_real_trace_are_those_of_plain_loops(corpus: Path, name: str) -> None:
    run = read_kineto(corpus / name)
    calls = defaultdict(list)
    for op, call, operator in launched(run):
        if call and operator:
            calls[op["rank"], operator[1]["name"], operator[0]].append((call["start_us"], op["start_us"], op["name"]))
    expected = Counter(
        (rank, operator, " -> ".join(name for *_, name in sorted(ops))) for (rank, operator, _), ops in calls.items()
    )

    found = operator_kernels(run, by="sequence").dropna(subset="operator")

    assert found.set_index(["rank", "operator", "sequence"])["calls"].to_dict() == expected


@pytest.mark.corpus
@pytest.mark.parametrize("by", ["operator", "kernel", "sequence"])
@pytest.mark.parametrize("name", [*SMALL, "traces/tracelens/b200_eager/eager_trace.json.gz"])
def test_the_rows_of_a_real_trace_sum_to_the_device_time(corpus: Path, name: str, by: Any) -> None:
    run = read_kineto(corpus / name)

    found = operator_kernels(run, by=by)

    assert found.groupby("rank")["kernel_us"].sum().to_dict() == pytest.approx(
        run.device_ops.groupby("rank")["duration_us"].sum().to_dict()
    )
    assert found["kernels"].sum() == len(run.device_ops)
    assert found.groupby("rank")["share"].sum().to_list() == pytest.approx([1.0] * run.device_ops["rank"].nunique())
