"""Overlap of communication with computing: by hand, on real traces, and not measured where nothing was recognised."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from perfnb.analyses.communication_overlap import communication_overlap
from perfnb.errors import PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import table_from_text

OPS = "rank device stream kind name start_us duration_us"
A_NANOSECOND = 0.001


def device_ops(text: str) -> pd.DataFrame:
    return table_from_text("device_ops", f"{OPS}\n{text}")


def test_overlap_is_the_part_of_the_communication_while_kernels_compute() -> None:
    ops = device_ops("0 0 7 compute a 0 10\n0 0 20 communication nccl 6 8\n0 0 21 communication nccl 12 8\n0 0 7 compute b 18 1")

    row = communication_overlap(Run(device_ops=ops)).iloc[0]

    assert row["communication_us"] == 14.0  # 6 to 20, the two calls overlap from 12 to 14
    assert row["overlapped_us"] == 4.0 + 1.0
    assert row["exposed_communication_us"] == 9.0
    assert row["overlap_share"] == pytest.approx(5 / 14)
    assert pd.isna(row["reason"])


def test_one_rank_without_communication_has_none_and_no_share() -> None:
    row = communication_overlap(Run(device_ops=device_ops("0 0 7 compute a 0 10"), world_size=1)).iloc[0]

    assert row["communication_us"] == 0.0
    assert pd.isna(row["overlap_share"])
    assert row["reason"] == "this device did not communicate"


def test_a_rank_of_many_without_communication_was_not_measured() -> None:
    ops = device_ops("0 0 7 compute slow 0 10\n0 0 7 compute quick 10 1\n1 0 7 communication nccl 0 5")

    found = communication_overlap(Run(device_ops=ops, world_size=2)).set_index("rank")

    assert found.loc[0, ["communication_us", "overlapped_us", "exposed_communication_us", "overlap_share"]].isna().all()
    assert "rank 0 belongs to a job of 2 ranks" in found.loc[0, "reason"]
    assert "slow, quick" in found.loc[0, "reason"]
    assert "communication_names=" in found.loc[0, "reason"]
    assert found.loc[1, "exposed_communication_us"] == 5.0


def test_the_reason_of_the_reader_is_handed_on() -> None:
    run = Run(device_ops=device_ops("0 0 7 compute a 0 10"), world_size=2, missing={"collectives": "no library was recognised"})

    assert communication_overlap(run)["reason"].to_list() == ["no library was recognised"]


def test_a_rank_that_communicates_on_the_host_has_no_device_communication() -> None:
    calls = table_from_text("collectives", "rank collective start_us duration_us clock\n0 all_reduce 0 5 host")

    row = communication_overlap(Run(device_ops=device_ops("0 0 7 compute a 0 10"), collectives=calls, world_size=2)).iloc[0]

    assert row["communication_us"] == 0.0


def test_a_job_of_unknown_size_that_calls_torch_distributed_was_not_measured() -> None:
    host = table_from_text(
        "host_ops", "rank process thread category name start_us duration_us\n0 1 1 operator c10d::allreduce_ 0 5"
    )

    row = communication_overlap(Run(device_ops=device_ops("0 0 7 compute a 0 10"), host_ops=host)).iloc[0]

    assert pd.isna(row["communication_us"])
    assert "a distributed job" in row["reason"]


def test_a_run_without_device_ops_has_no_row_and_an_unknown_way_is_refused() -> None:
    assert communication_overlap(Run()).empty
    with pytest.raises(PerfnbError, match="use 'window' or 'step'"):
        communication_overlap(Run(), by="kernel")  # type: ignore[arg-type]


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("traces/tracelens/mi300x_resnet_act_checkpoint/resnet_act_checkpoint.json.gz", 0.2222),  # corpus README: 22.22 %
        ("traces/hta/df_index_resolver/df_index_resolver.json.gz", 0.0),  # none overlapped
        ("traces/tracelens/b200_eager/eager_trace.json.gz", None),
    ],
)
def test_real_traces_give_the_expected_communication(corpus: Path, name: str, share: float | None) -> None:
    expected = pd.read_csv(corpus / "expected.csv").query("file == @name").set_index("quantity")["value"]

    row = communication_overlap(read_kineto(corpus / name)).iloc[0]

    exposed, whole = float(expected["exposed_communication_us"]), float(expected["communication_us"])
    assert row["exposed_communication_us"] == pytest.approx(exposed, abs=A_NANOSECOND * 1.01)
    assert row["communication_us"] == pytest.approx(whole, abs=A_NANOSECOND * 1.01)
    assert row["overlapped_us"] == pytest.approx(whole - exposed, abs=A_NANOSECOND * 2.01)
    assert share is None or row["overlap_share"] == pytest.approx(share, abs=5e-5)
