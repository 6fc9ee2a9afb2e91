"""Copies and memsets: direction, host memory, bytes, rate."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import perfnb
from perfnb.analyses.copies import (
    copies,
    copy_bandwidth,
    copy_bandwidth_summary,
    copy_summary,
    thinned_copy_bandwidth,
)
from perfnb.run import Run
from perfnb.tables import table_from_text

OPS = table_from_text(
    "device_ops",
    """rank device stream kind          name                               start_us duration_us bytes
       0    0      7      copy          "Memcpy HtoD (Pageable -> Device)" 0        10          1000
       0    0      8      copy          "Memcpy HtoD (Pinned -> Device)"   5        10          4000
       0    0      7      copy          "Memcpy DtoH (Device -> Pinned)"   20       4           400
       0    0      7      copy          "Memcpy DtoD (Device -> Device)"   30       0           64
       0    0      7      copy          CopyHostToDevice                   31       2           -
       0    0      7      memset        "Memset (Device)"                  40       2           8000
       0    0      9      communication "Memcpy PtoP (Device -> Device)"   50       5           500
       0    0      9      communication ncclAllReduce                      60       5           -
       0    0      7      compute       gemm_HtoD                          70       5           -""",
)
RUN = Run(device_ops=OPS)


def test_names_say_the_direction_and_the_kind_of_host_memory() -> None:
    found = copies(RUN)

    assert found["direction"].to_list() == ["HtoD", "HtoD", "DtoH", "DtoD", "HtoD", "memset", "PtoP"]
    assert found["host_memory"].fillna("-").to_list() == ["pageable", "pinned", "pinned", "-", "-", "-", "-"]


def test_a_rate_needs_bytes_and_a_duration() -> None:
    found = copies(RUN)

    assert found["bytes_per_s"].isna().to_list() == [False, False, False, True, True, False, False]
    assert found["bytes_per_s"].dropna().to_list() == pytest.approx([1e8, 4e8, 1e8, 4e9, 1e8])


def test_the_summary_keeps_pageable_and_pinned_apart_and_counts_what_has_no_bytes() -> None:
    found = copy_summary(copies(RUN))

    pinned = found[found["direction"].eq("HtoD") & found["host_memory"].eq("pinned")].iloc[0]
    assert (pinned["operations"], pinned["bytes"], pinned["duration_us"]) == (1, 4000, 10.0)
    unknown = found[found["direction"].eq("HtoD") & found["host_memory"].isna()].iloc[0]
    assert unknown["without_bytes"] == 1
    assert pd.isna(unknown["bytes"])
    assert pd.isna(unknown["bytes_per_s"])
    assert found.loc[found["direction"] == "memset", "bytes_per_s"].to_list() == pytest.approx([4e9])


def test_rates_of_copies_at_once_add_up_and_return_to_nothing() -> None:
    found = copy_bandwidth(copies(RUN))

    upward = found[found["direction"] == "HtoD"]
    assert upward["time_us"].to_list() == [0, 5, 10, 15]
    assert upward["operations"].to_list() == [1, 2, 1, 0]
    assert upward["bytes_per_s"].to_list() == pytest.approx([1e8, 5e8, 4e8, 0])
    assert upward["bytes_per_s"].iloc[-1] == 0.0


def test_rates_over_time_are_weighted_by_the_time_that_something_is_copied() -> None:
    found = copy_bandwidth_summary(copy_bandwidth(copies(RUN))).set_index("direction").loc["HtoD"]

    assert found["busy_us"] == 15.0
    assert found["mean_bytes_per_s"] == pytest.approx((5 * 1e8 + 5 * 5e8 + 5 * 4e8) / 15)
    assert found["median_bytes_per_s"] == pytest.approx(4e8)
    assert found["max_bytes_per_s"] == pytest.approx(5e8)


def test_a_run_without_copies_gives_empty_tables() -> None:
    found = copies(Run(device_ops=OPS[OPS["kind"] == "compute"]))

    assert found.empty
    assert copy_summary(found).empty
    assert copy_bandwidth(found).empty
    assert copy_bandwidth_summary(copy_bandwidth(found)).empty
    assert thinned_copy_bandwidth(copy_bandwidth(found)).empty


@pytest.mark.corpus
def test_recorded_copies_add_up_to_the_bytes_of_the_device_ops(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/tracelens/h100_owlv2/google_owlv2-large-patch14-ensemble__1016001.json.gz")
    moved = run.device_ops[run.device_ops["kind"].isin(["copy", "memset"])]

    found = copies(run)
    summary, over_time = copy_summary(found), copy_bandwidth_summary(copy_bandwidth(found))

    assert len(found) == len(moved) == summary["operations"].sum()
    assert summary["bytes"].sum() == moved["bytes"].sum()
    assert found["direction"].notna().all()
    assert found.loc[found["direction"].isin(["HtoD", "DtoH"]), "host_memory"].eq("pageable").all()
    area = (over_time["mean_bytes_per_s"] * over_time["busy_us"] / 1e6).sum()
    assert area == pytest.approx(float(moved["bytes"].sum()))
