"""Kernel sequences: numbers by hand, and those of plain loops on real traces."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.analyses.kernel_sequences import SEQUENCE_COLUMNS, kernel_sequences, largest_sequences, sequence_numbers
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import table_from_text

OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name start_us duration_us
    0    0      7      compute a    0        1
    0    0      7      compute b    2        2
    0    0      7      compute a    10       3
    0    0      7      copy    HtoD 14       9
    0    0      7      compute b    24       4
    0    0      8      compute a    1        5
    0    0      8      compute b    8        6
    0    1      7      compute a    0        7
    0    1      7      compute b    9        8
    1    -      -      compute a    0        1
    1    -      -      compute b    2        1""",
)
SMALL = [
    "traces/hta/alexnet/benchmark_result_2869224_1695835535_trace.json.gz",
    "traces/hta/amd_trace/mi250_minitoy_train_ROCm6_2_kineto.json.gz",
    "traces/hta/sampled_2_of_128",
    "traces/tracelens/b200_eager/eager_trace.json.gz",
    "traces/tracelens/mi210_gpu_only/gpu_only_trace.json.gz",
]


def kernels(names: str) -> Run:
    """Kernels of one stream, one letter each, 1 us long, one every 2 us."""
    count = len(names)
    frame = {"rank": 0, "device": 0, "stream": 7, "kind": "compute", "name": list(names), "duration_us": 1.0}
    return Run(
        device_ops=table_from_text("device_ops", "rank name start_us duration_us")
        .reindex(range(count))
        .assign(**frame, start_us=np.arange(count) * 2.0)
        .astype({"kind": "category", "name": "category", "device": "Int64", "stream": "Int64"})
    )


def test_a_sequence_counts_on_each_stream_but_never_across_streams() -> None:
    found = kernel_sequences(Run(device_ops=OPS), 2, fewest=1)

    assert found.astype(object).to_numpy().tolist() == [
        # stream 7: (0, 2): 1 + 2 and (10, 24): 3 + 4 past the copy; stream 8: 5 + 6; spans 4, 18, 13
        [0, 0, 2, "a -> b", 3, 21.0, 7.0, 13.0],
        [0, 0, 2, "b -> a", 1, 5.0, 5.0, 11.0],
        [0, 1, 2, "a -> b", 1, 15.0, 15.0, 17.0],
        [1, -1, 2, "a -> b", 1, 2.0, 2.0, 3.0],
    ]


def test_sequences_that_occur_less_often_than_asked_are_left_out() -> None:
    assert kernel_sequences(Run(device_ops=OPS), 2)["occurrences"].to_list() == [3]
    assert kernel_sequences(Run(device_ops=OPS), 2, fewest=4).empty


def test_occurrences_that_overlap_count_each() -> None:
    found = kernel_sequences(kernels("aaaa"), 2)

    assert found[["sequence", "occurrences", "total_us", "span_us"]].to_numpy().tolist() == [["a -> a", 3, 6.0, 3.0]]


def test_contains_asks_each_name_and_not_the_joint_between_them() -> None:
    run = kernels("abab")

    assert kernel_sequences(run, 2, contains="b")["sequence"].to_list() == ["a -> b"]
    assert kernel_sequences(run, 2, contains="->").empty
    assert kernel_sequences(run, 2, contains="c").empty


def test_names_that_join_to_the_same_text_stay_apart() -> None:
    ops = table_from_text(
        "device_ops",
        """rank device stream kind    name start_us duration_us
        0    0      7      compute "a -> b" 0        1
        0    0      7      compute c        2        1
        0    0      8      compute a        0        1
        0    0      8      compute "b -> c" 2        1""".replace('"a -> b"', "ab").replace('"b -> c"', "bc"),
    )
    ops = ops.assign(name=pd.Categorical(["a -> b", "c", "a", "b -> c"]))

    found = kernel_sequences(Run(device_ops=ops), 2, fewest=1)

    assert found["sequence"].to_list() == ["a -> b -> c"] * 2
    assert found["occurrences"].to_list() == [1, 1]


@pytest.mark.parametrize("length", [1, 3, 4, 5])
def test_a_sequence_may_be_as_long_as_its_stream_and_no_longer(length: int) -> None:
    found = kernel_sequences(kernels("abca"), length, fewest=1)

    assert found["occurrences"].sum() == max(4 - length + 1, 0)
    assert list(found) == list(SEQUENCE_COLUMNS)


@pytest.mark.parametrize("run", [Run(), Run(device_ops=OPS[OPS["kind"].eq("copy")])])
def test_a_run_without_kernels_has_no_sequences(run: Run) -> None:
    found = kernel_sequences(run)

    assert found.empty
    assert list(found) == list(SEQUENCE_COLUMNS)
    assert largest_sequences(found).empty


@pytest.mark.parametrize("wrong", [{"length": 0}, {"fewest": 0}])
def test_lengths_and_counts_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(PerfnbError, match="must both be at least 1"):
        kernel_sequences(Run(device_ops=OPS), **wrong)


def test_hostile_names_are_kept_as_they_are() -> None:
    name = "</script>\x1b[2J\u202e"
    ops = OPS.assign(name=OPS["name"].astype("string").replace("a", name).astype("category"))

    assert kernel_sequences(Run(device_ops=ops), 2)["sequence"].to_list() == [f"{name} -> b"]


def test_the_largest_sequences_add_up_ranks_and_devices() -> None:
    found = largest_sequences(kernel_sequences(Run(device_ops=OPS), 2, fewest=1), 1)

    assert found.to_numpy().tolist() == [[2, "a -> b", 5, 38.0]]


@given(st.lists(st.integers(-1, 2), max_size=12), st.data())
def test_runs_of_codes_have_one_number_exactly_when_they_are_equal(code: list[int], data: st.DataObject) -> None:
    spans = st.tuples(st.integers(0, len(code)), st.integers(0, len(code))).map(sorted)
    runs = data.draw(st.lists(spans, max_size=8).map(lambda each: [(low, high - low) for low, high in each if low < high]))
    first, length = (np.array([run[place] for run in runs], dtype=np.int64) for place in (0, 1))

    number = sequence_numbers(np.array(code, dtype=np.int64), first, length)

    texts = [tuple(code[low : low + size]) for low, size in runs]
    for one in range(len(runs)):
        for other in range(len(runs)):
            assert (number[one] == number[other]) == (texts[one] == texts[other])


@pytest.mark.corpus
@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("name", SMALL)
def test_a_real_trace_gives_what_plain_loops_give(corpus: Path, name: str, length: int) -> None:
    run = read_kineto(corpus / name)
    streams: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for op in run.device_ops.to_dict("records"):
        if op["kind"] in ("compute", "communication"):
            device = -1 if pd.isna(op["device"]) else op["device"]
            streams[op["rank"], device, None if pd.isna(op["stream"]) else op["stream"]].append(op)
    expected: dict[Any, list[float]] = defaultdict(list)
    for (rank, device, _), ops in streams.items():
        ops.sort(key=lambda op: op["start_us"])
        for low in range(len(ops) - length + 1):
            window = ops[low : low + length]
            expected[rank, device, " -> ".join(op["name"] for op in window)].append(sum(op["duration_us"] for op in window))

    found = kernel_sequences(run, length, fewest=1).set_index(["rank", "device", "sequence"])

    assert found["occurrences"].to_dict() == {key: len(times) for key, times in expected.items()}
    assert found["total_us"].to_dict() == pytest.approx({key: sum(times) for key, times in expected.items()})
