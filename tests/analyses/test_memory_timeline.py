"""Memory over time, its baseline and its peaks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import perfnb
from perfnb.analyses.memory_timeline import memory_drawing, memory_peaks, memory_timeline
from perfnb.run import Run
from perfnb.tables import table_from_text

BLOCKS = table_from_text(
    "allocations",
    """rank device time_us bytes allocated_bytes reserved_bytes
       0    0      1       100   1100            2000
       0    -      2       8     8               0
       0    0      3       500   1600            4000
       0    0      5       -500  1100            4000
       0    0      6       -600  500             3000
       1    0      4       10    -               -
       1    0      7       20    -               -
       1    0      9       -10   -               -""",
)
RUN = Run(allocations=BLOCKS)


def test_the_baseline_is_what_was_allocated_before_the_first_row_of_each_memory() -> None:
    found = memory_timeline(RUN)

    assert found.loc[found["rank"].eq(0) & found["device"].eq(0), "baseline_bytes"].to_list() == [1000] * 4
    assert found.loc[found["device"].isna(), "baseline_bytes"].to_list() == [0]
    assert found.loc[found["rank"].eq(0) & found["device"].eq(0), "since_start_bytes"].to_list() == [100, 600, 100, -500]


def test_without_totals_baseline_and_totals_are_na_and_the_growth_is_known() -> None:
    found = memory_timeline(RUN)

    second = found[found["rank"] == 1]
    assert second["baseline_bytes"].isna().all()
    assert second["allocated_bytes"].isna().all()
    assert second["since_start_bytes"].to_list() == [10, 30, 20]


def test_peaks_say_when_and_how_much_and_what_is_left() -> None:
    found = memory_peaks(memory_timeline(RUN))

    device = found[found["rank"].eq(0) & found["device"].eq(0)].iloc[0]
    assert (device["allocations"], device["frees"], device["largest_bytes"]) == (2, 2, 500)
    assert (device["peak_allocated_bytes"], device["peak_time_us"], device["peak_reserved_bytes"]) == (1600, 3.0, 4000)
    assert (device["peak_growth_bytes"], device["left_bytes"], device["unseen_bytes"]) == (600, -500, 0)
    untotalled = found[found["rank"] == 1].iloc[0]
    assert pd.isna(untotalled["peak_allocated_bytes"])
    assert untotalled["peak_growth_bytes"] == 30


def test_totals_that_the_rows_do_not_explain_are_unseen_bytes() -> None:
    lost = BLOCKS.drop(index=2)

    found = memory_peaks(memory_timeline(Run(allocations=lost)))

    assert found[found["rank"].eq(0) & found["device"].eq(0)]["unseen_bytes"].to_list() == [500]


def test_lines_to_draw_show_growth_only_where_there_are_no_totals() -> None:
    found = memory_drawing(memory_timeline(RUN))

    first, second = (found[found["rank"] == rank] for rank in (0, 1))
    assert set(first["measure"]) == {"allocated", "reserved"}
    assert set(second["measure"]) == {"since_start"}
    assert second["bytes"].to_list() == [10, 30, 20]


def test_a_run_without_memory_rows_gives_empty_tables() -> None:
    found = memory_timeline(Run())

    assert found.empty
    assert memory_peaks(found).empty
    assert memory_drawing(found).empty


@pytest.mark.corpus
def test_the_recorded_job_peaks_where_its_allocator_said(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces/hta/df_index_resolver/df_index_resolver.json.gz")

    timeline = memory_timeline(run)
    peaks = memory_peaks(timeline)
    drawn = memory_drawing(timeline)

    device = peaks[peaks["device"].notna()].iloc[0]
    assert (device["allocations"], device["frees"]) == (13_385, 13_385)
    assert (device["peak_allocated_bytes"], device["peak_reserved_bytes"]) == (6_629_508_096, 12_782_141_440)
    assert device["unseen_bytes"] == 0
    assert len(drawn) <= 2000
    line = drawn[drawn["device"].notna() & drawn["measure"].eq("allocated")]
    assert line["bytes"].max() == 6_629_508_096
    assert line.loc[line["bytes"] == 6_629_508_096, "time_us"].iloc[0] == device["peak_time_us"]
