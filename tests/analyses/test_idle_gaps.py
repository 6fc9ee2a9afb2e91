"""Gaps of a device and their causes: by hand, on real traces, and the same as the ledger's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfnb.analyses.idle_gaps import idle_gaps, idle_summary
from perfnb.device_time import device_breakdown
from perfnb.idle_time import CAUSES, matching
from perfnb.read.kineto import read_kineto
from perfnb.run import Run
from perfnb.tables import table_from_text

HOST = "rank process thread category name start_us duration_us correlation"
DEVICE = "rank device stream kind name start_us duration_us correlation"
PAIR_A = "traces/kineto/resnet50_pair_A"
PAIR_C = "traces/kineto/resnet50_pair_C"


@pytest.fixture
def run() -> Run:
    """Two gaps: 10 to 60, of which the loader holds 20 to 45; 70 to 80, ended by an op of which no launch was recorded."""
    host = table_from_text(
        "host_ops",
        f"""{HOST}
        0 1 1 annotation enumerate(DataLoader)#_It.__next__ 20 25 -
        0 1 1 runtime    cudaLaunchKernel                   50 4  2
        0 1 0 overhead   "Buffer Flush"                     30 5  -""",
    )
    device = table_from_text(
        "device_ops",
        f"""{DEVICE}
        0 0 7 compute a 0  10 -
        0 0 7 compute b 60 10 2
        0 0 7 compute c 80 10 -
        0 1 7 compute d 0  90 -""",
    )
    return Run(host_ops=host, device_ops=device)


def test_a_gap_is_split_by_what_the_launching_thread_did(run: Run) -> None:
    gaps = idle_gaps(run)

    first = gaps[gaps["gap"].eq(0)]
    assert first[["start_us", "duration_us"]].drop_duplicates().to_numpy().tolist() == [[10.0, 50.0]]
    assert dict(zip(first["cause"], first["time_us"], strict=True)) == {
        "data": 25.0,
        "launch": 10.0,  # 50 to 60
        "python": 10.0 + 5.0,  # 10 to 20 and 45 to 50
    }


def test_a_gap_names_the_op_that_ended_it_and_its_launch(run: Run) -> None:
    gaps = idle_gaps(run).drop_duplicates("gap")

    assert gaps["ended_by"].to_list() == [1, 2]
    assert gaps["ended_by_name"].to_list() == ["b", "c"]
    assert gaps["call_start_us"].to_list()[0] == 50.0
    assert np.isnan(gaps["call_end_us"].to_list()[1])
    assert gaps["cause"].to_list()[1] == "unattributed"


def test_time_under_an_overhead_row_is_told_apart_within_its_cause(run: Run) -> None:
    gaps = idle_gaps(run).set_index(["gap", "cause"])

    assert gaps["overhead_us"].to_dict() == {(0, "data"): 5.0, (0, "launch"): 0.0, (0, "python"): 0.0, (1, "unattributed"): 0.0}


def test_the_summary_has_every_cause_of_every_device(run: Run) -> None:
    summary = idle_summary(run).set_index(["device", "cause"])

    assert len(summary) == 2 * len(CAUSES)
    assert summary.loc[(0, "data"), ["idle_us", "share", "gaps", "median_us"]].to_list() == [25.0, 25 / 60, 1, 25.0]
    assert summary.loc[(0, "sync"), ["idle_us", "share", "gaps"]].to_list() == [0.0, 0.0, 0]
    assert np.isnan(summary.loc[(0, "sync"), "median_us"])
    assert summary.loc[1, "share"].isna().all()  # device 1 never idled


def test_gaps_of_different_ranks_are_apart(run: Run) -> None:
    both = Run(
        host_ops=pd.concat([run.host_ops, run.host_ops.assign(rank=3)], ignore_index=True),
        device_ops=pd.concat([run.device_ops, run.device_ops.assign(rank=3)], ignore_index=True),
    )

    gaps = idle_gaps(both)

    assert gaps.groupby("rank")["time_us"].sum().to_dict() == {0: 60.0, 3: 60.0}


def test_a_run_without_device_ops_has_no_gaps() -> None:
    assert idle_gaps(Run()).empty
    assert idle_summary(Run()).empty


def test_names_are_tested_as_text_and_missing_ones_match_nothing() -> None:
    names = pd.Series(["cudaMemcpy", None, "aten::add", "cudaMemcpy"], dtype="category")

    assert matching(names, "(?i:memcpy)").tolist() == [True, False, False, True]
    assert matching(names.iloc[[1]], "").tolist() == [False]


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "share"),
    [
        (f"{PAIR_A}/before_num_workers_0/worker0.1623143089861.pt.trace.json.gz", 0.72),
        (f"{PAIR_A}/after_num_workers_4/worker0.1623212756351.pt.trace.json.gz", 0.015),
        (f"{PAIR_C}/before_num_workers_0/worker0.pt.trace.json.gz", 0.67),
        (f"{PAIR_C}/after_num_workers_4/worker0.pt.trace.json.gz", 0.0),
        ("traces/tracelens/h100_owlv2/google_owlv2-large-patch14-ensemble__1016001.json.gz", 0.96),
    ],
)
def test_the_loader_holds_the_published_share_of_the_idle_time(corpus: Path, name: str, share: float) -> None:
    run = read_kineto(corpus / name)

    summary = idle_summary(run).set_index("cause")

    assert summary.loc["data", "share"] == pytest.approx(share, abs=0.02)
    assert summary["idle_us"].sum() == pytest.approx(device_breakdown(run)["idle_us"].iloc[0], abs=0.01)


@pytest.mark.corpus
def test_nearly_all_idle_time_of_a_graph_follows_calls_made_before_the_gap(corpus: Path) -> None:
    gaps = idle_gaps(read_kineto(corpus / "traces/hta/trace_diff/test.json.gz"))

    queued = gaps.loc[gaps["call_end_us"] <= gaps["start_us"], "time_us"].sum() / gaps["time_us"].sum()

    assert queued == pytest.approx(0.96, abs=0.02)
