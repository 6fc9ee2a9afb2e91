"""Joining device ops with their launch calls, their steps and their operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.launches import launches, launching_operators
from perfnb.run import Run
from perfnb.tables import table_from_text

HOST = table_from_text(
    "host_ops",
    """rank process thread category name                start_us duration_us correlation
       0    1       1      operator aten::linear        0        20          -
       0    1       1      operator aten::addmm         1        9           -
       0    1       1      runtime  cudaLaunchKernel    2        3           7
       0    1       1      runtime  cudaGraphLaunch     12       2           9
       0    1       2      operator autograd            0        50          -
       0    1       2      runtime  cudaLaunchKernel    30       1           11
       0    1       3      runtime  cudaLaunchKernel    31       1           12
       1    1       1      operator aten::mm            0        9           -
       1    1       1      runtime  cudaLaunchKernel    3        1           7""",
)
OPS = table_from_text(
    "device_ops",
    """rank kind    name start_us duration_us correlation
       0    compute gemm 6        2           7
       0    compute one  15       1           9
       0    compute two  16       1           9
       0    compute bwd  32       1           11
       0    compute free 34       1           12
       0    compute lost 36       1           999
       0    compute bare 38       1           -
       1    compute gemm 6        2           7""",
)
STEPS = table_from_text("steps", "rank step start_us duration_us\n0 4 0 12\n0 5 12 19\n1 4 0 50")
RUN = Run(steps=STEPS, host_ops=HOST, device_ops=OPS)


def test_device_ops_find_the_call_of_their_correlation_on_their_own_rank() -> None:
    found = launches(RUN)

    assert found["call"].to_list() == [2, 3, 3, 5, 6, pd.NA, pd.NA, 8]
    assert found["call_start_us"].dropna().to_list() == [2, 12, 12, 30, 31, 3]
    assert found["call_end_us"].dropna().to_list() == [5, 14, 14, 31, 32, 4]
    assert found["thread"].dropna().to_list() == ["1", "1", "1", "2", "3", "1"]


def test_the_step_of_a_device_op_is_the_host_step_that_its_call_starts_in() -> None:
    found = launches(RUN)

    assert found["step"].to_list() == [4, 5, 5, 5, pd.NA, pd.NA, pd.NA, 4]


def test_the_launching_operator_is_the_innermost_on_the_thread_of_the_call() -> None:
    found = launching_operators(RUN)

    assert found.to_list() == [1, 0, 0, 4, pd.NA, pd.NA, pd.NA, 7]


def test_correlations_far_apart_join_as_dense_ones_do() -> None:
    far = {7: 2**62, 9: 5, 11: 2**40, 12: 3, 999: 1}

    found = launches(
        replace(
            RUN,
            host_ops=HOST.assign(correlation=HOST["correlation"].map(far).astype("Int64")),
            device_ops=OPS.assign(correlation=OPS["correlation"].map(far).astype("Int64")),
        )
    )

    pd.testing.assert_frame_equal(found, launches(RUN))


@pytest.mark.parametrize("spread", [1, 10**6])
def test_of_two_calls_with_one_correlation_the_first_counts(spread: int) -> None:
    host = table_from_text(
        "host_ops",
        """rank process thread category name start_us duration_us correlation
           0    1       1      runtime  a    0        1           1
           0    1       1      runtime  b    2        1           1
           0    1       1      runtime  c    4        1           2""",
    )
    host = host.assign(correlation=host["correlation"] * spread)

    found = launches(Run(host_ops=host, device_ops=OPS.head(1).assign(correlation=pd.array([spread], "Int64"))))

    assert found["call"].to_list() == [0]


def test_results_keep_the_index_of_the_device_ops_and_name_rows_of_host_ops_by_label() -> None:
    run = replace(RUN, host_ops=HOST.set_axis(HOST.index + 100), device_ops=OPS.set_axis(OPS.index + 50))

    found, operators = launches(run), launching_operators(run)

    assert found.index.equals(run.device_ops.index)
    assert found.loc[50, "call"] == 102
    assert operators.loc[50] == 101


def test_a_run_without_host_ops_launches_nothing() -> None:
    found = launches(Run(device_ops=OPS))

    assert len(found) == len(OPS)
    assert found.isna().all(axis=None)
    assert launching_operators(Run(device_ops=OPS)).isna().all()
    assert launches(Run()).empty
    assert launching_operators(Run()).empty


@pytest.mark.corpus
def test_a_recorded_traces_kernels_belong_to_the_operator_that_a_plain_search_finds(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/tracelens/mi300x_resnet_act_checkpoint/resnet_act_checkpoint.json.gz")
    host = run.host_ops
    start = np.rint(host["start_us"] * 1e3)
    end = start + np.rint(host["duration_us"] * 1e3)
    operators = host["category"] == "operator"

    found, calls = launching_operators(run), launches(run)

    assert calls["call"].isna().sum() == 968
    for row in calls.index[calls["call"].notna()][::53]:
        call = calls.loc[row, "call"]
        around = host[
            operators
            & (host["thread"] == host.loc[call, "thread"])
            & (host["process"] == host.loc[call, "process"])
            & (start <= start[call])
            & (end >= end[call])
        ]
        expected = pd.NA if around.empty else around.sort_values(["start_us", "duration_us"], ascending=[True, False]).index[-1]
        assert found[row] is expected or found[row] == expected
