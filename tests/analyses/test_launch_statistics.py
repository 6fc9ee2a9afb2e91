"""What launch calls cost: call, device work, delay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import perfnb
from perfnb.analyses.launch_statistics import launch_histogram, launch_statistics, launch_summary
from perfnb.run import Run
from perfnb.tables import table_from_text

HOST = table_from_text(
    "host_ops",
    """rank process thread category name                start_us duration_us correlation
       0    1       1      operator aten::mm            0        20          -
       0    1       1      runtime  cudaLaunchKernel    2        5           1
       0    1       1      runtime  cudaGraphLaunch     30       4           2
       0    1       1      operator aten::mm            40       20          -
       0    1       1      runtime  cudaLaunchKernel    42       6           3
       0    1       1      runtime  cudaDeviceSynchronize 70     6           4""",
)
OPS = table_from_text(
    "device_ops",
    """rank device stream kind    name start_us duration_us correlation
       0    0      7      compute gemm 12       3           1
       0    0      7      compute two  37       1           2
       0    0      7      compute one  35       2           2
       0    0      7      compute gemm 44       30          3
       0    0      7      compute lost 90       1           9""",
)
STEPS = table_from_text("steps", "rank step start_us duration_us\n0 3 0 35\n0 4 35 60")
RUN = Run(steps=STEPS, host_ops=HOST, device_ops=OPS)


def test_each_call_that_launched_has_its_duration_its_device_time_and_its_delay() -> None:
    found = launch_statistics(RUN)

    assert found["call_name"].to_list() == ["cudaLaunchKernel", "cudaGraphLaunch", "cudaLaunchKernel"]
    assert found["call"].to_list() == [1, 2, 4]
    assert found["step"].to_list() == [3, 3, 4]
    assert found["call_us"].to_list() == [5, 4, 6]
    assert found["device_us"].to_list() == [3, 3, 30]
    assert found["delay_us"].to_list() == [10, 5, 2]
    assert found["is_short"].to_list() == [True, True, False]
    assert found["delay_reason"].isna().all()


def test_a_graph_replay_is_one_launch_named_after_the_op_that_starts_first() -> None:
    graph = launch_statistics(RUN).loc[1]

    assert graph["device_ops"] == 2
    assert graph["device_name"] == "one"


def test_a_call_belongs_to_the_operator_around_it_or_to_none() -> None:
    found = launch_statistics(RUN)

    assert found["operator"].to_list() == [0, pd.NA, 3]
    assert found["operator_name"].astype(object).where(found["operator"].notna(), None).to_list() == [
        "aten::mm",
        None,
        "aten::mm",
    ]


def test_delays_of_a_rank_whose_work_starts_before_its_calls_are_na_and_say_why() -> None:
    early = pd.concat([OPS, OPS.assign(rank=1, start_us=OPS["start_us"] - 11)], ignore_index=True)
    run = replace(RUN, host_ops=pd.concat([HOST, HOST.assign(rank=1)], ignore_index=True), device_ops=early)

    found = launch_statistics(run)

    assert found.loc[found["rank"] == 0, "delay_us"].to_list() == [10, 5, 2]
    assert found.loc[found["rank"] == 1, "delay_us"].isna().all()
    assert found.loc[found["rank"] == 1, "delay_reason"].str.startswith("100% of the device work starts before").all()
    assert found.loc[found["rank"] == 1, "call_us"].to_list() == [5, 4, 6]


def test_one_negative_delay_of_many_is_kept() -> None:
    calls = table_from_text(
        "host_ops", "rank process thread category name start_us duration_us correlation\n0 1 1 runtime call 10 1 1"
    )
    calls = pd.concat([calls] * 200, ignore_index=True).assign(correlation=pd.array(range(200), "Int64"))
    ops = table_from_text("device_ops", "rank kind name start_us duration_us correlation\n0 compute gemm 12 1 1")
    ops = pd.concat([ops] * 200, ignore_index=True).assign(correlation=pd.array(range(200), "Int64"))
    ops.loc[7, "start_us"] = 9.0

    found = launch_statistics(Run(host_ops=calls, device_ops=ops))

    assert sorted(found["delay_us"])[:2] == [-1.0, 2.0]
    assert found["delay_reason"].isna().all()


def test_the_summary_adds_up_launches_by_operator_and_kernel() -> None:
    found = launch_summary(launch_statistics(RUN))

    gemm = found[found["device_name"] == "gemm"].iloc[0]
    assert (gemm["launches"], gemm["short_launches"], gemm["call_us"], gemm["device_us"]) == (2, 1, 11.0, 33.0)
    assert (gemm["median_delay_us"], gemm["max_delay_us"]) == (6.0, 10.0)
    assert found["device_us"].is_monotonic_decreasing
    assert found["launches"].sum() == 3


def test_the_histogram_counts_every_launch_once_per_measure_in_buckets_that_double() -> None:
    found = launch_histogram(launch_statistics(RUN))

    call = found[found["measure"] == "call"]
    assert call[["low_us", "high_us", "launches"]].to_numpy().tolist() == [[4.0, 8.0, 3.0]]
    delay = found[found["measure"] == "delay"]
    assert delay[["low_us", "launches"]].to_numpy().tolist() == [[2.0, 1.0], [4.0, 1.0], [8.0, 1.0]]
    assert found.groupby("measure")["share"].sum().round(9).eq(1).all()


def test_without_launches_the_tables_are_empty_and_keep_their_columns() -> None:
    found = launch_statistics(Run(device_ops=OPS))

    assert found.empty
    assert "delay_us" in found
    assert launch_summary(found).empty
    assert launch_histogram(found).empty


@pytest.mark.corpus
def test_a_recorded_graph_replay_counts_once_and_no_delay_is_negative(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/tracelens/mi300x_sglang_decode/sglang_Qwen3-8B_decode.json.gz")

    found = launch_statistics(run)

    assert found["device_ops"].max() == 544
    assert len(found) < found["device_ops"].sum() <= len(run.device_ops)
    assert found["delay_us"].min() >= 2.0
