"""Clocks of ranks brought together by the ends of their collectives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.analyses.arrivals import arrivals
from perfnb.analyses.clocks import align_clocks
from perfnb.analyses.stragglers import caused_waits
from perfnb.run import Run
from perfnb.tables import conform, table_from_text

TABLES = ("steps", "host_ops", "device_ops", "collectives")


def moved(run: Run, shift_us: dict[int, float], rate: dict[int, float] | None = None) -> Run:
    """The run as ranks would have recorded it whose clocks are ahead by so much and run so much too fast."""
    tables = {}
    for name in TABLES:
        table = getattr(run, name)
        speed = 1.0 + table["rank"].map(rate or {}).fillna(0.0)
        shift = table["rank"].map(shift_us).fillna(0.0)
        tables[name] = table.assign(start_us=table["start_us"] * speed + shift, duration_us=table["duration_us"] * speed)
    return replace(run, **tables)


def job(calls: int, apart_us: float, ranks: int = 3, groups: int = 1) -> Run:
    """All-reduces that end together; with two groups, ranks 0 and 1 share one and ranks 1 and 2 the other."""
    rows = []
    for call in range(calls):
        members = range(ranks) if groups == 1 else ((0, 1), (1, 2))[call % 2]
        for rank in members:
            end = (call + 1) * apart_us
            name = "0" if groups == 1 else str(call % 2)
            rows.append((rank, name, call + 1, "all_reduce", len(list(members)), end - 50 - 7 * rank, 50 + 7 * rank, "device"))
    columns = ["rank", "group", "sequence", "collective", "group_size", "start_us", "duration_us", "clock"]
    return Run(collectives=conform("collectives", pd.DataFrame(rows, columns=columns)))


def test_a_shifted_clock_is_found_and_taken_out_of_every_table() -> None:
    run = job(calls=5, apart_us=1000.0)
    run = replace(
        run,
        steps=table_from_text("steps", "rank step start_us duration_us\n0 1 0 9\n1 1 0 9"),
        allocations=table_from_text("allocations", "rank time_us bytes\n1 700 16"),
    )

    late = moved(run, {1: 400.0})
    late = replace(late, allocations=late.allocations.assign(time_us=1100.0))
    aligned, clocks = align_clocks(late)

    assert clocks.ranks["offset_us"].tolist() == pytest.approx([0.0, 400.0, 0.0])
    assert clocks.residual_us == pytest.approx(0.0)
    assert clocks.unmeasured is None
    assert aligned.collectives["start_us"].tolist() == pytest.approx(run.collectives["start_us"].tolist())
    assert aligned.steps["start_us"].tolist() == pytest.approx([0.0, 0.0])
    assert aligned.allocations["time_us"].tolist() == pytest.approx([700.0])


def test_a_clock_that_runs_fast_is_slowed_down_where_a_second_was_recorded() -> None:
    run = job(calls=40, apart_us=100_000.0)

    aligned, clocks = align_clocks(moved(run, {2: -3000.0}, {2: 50e-6}))

    assert clocks.ranks["drift_us_per_s"].tolist() == pytest.approx([0.0, 0.0, 50.0], abs=0.01)
    assert clocks.residual_us < 1.0
    assert aligned.collectives["start_us"].to_numpy() == pytest.approx(run.collectives["start_us"].to_numpy(), abs=1.0)


@pytest.mark.parametrize(("calls", "apart_us"), [(9, 200_000.0), (40, 10_000.0)])
def test_no_drift_is_made_up_from_few_or_close_matches(calls: int, apart_us: float) -> None:
    _, clocks = align_clocks(moved(job(calls, apart_us), {}, {2: 50e-6}))

    assert clocks.ranks["drift_us_per_s"].tolist() == [0.0, 0.0, 0.0]


def test_one_outlier_moves_neither_offset_nor_drift() -> None:
    run = job(calls=30, apart_us=100_000.0)
    calls = run.collectives
    odd = calls["rank"].eq(1) & calls["sequence"].eq(7)

    _, clocks = align_clocks(replace(run, collectives=calls.assign(duration_us=calls["duration_us"] + 5000.0 * odd)))

    assert clocks.ranks["offset_us"].abs().max() < 1.0
    assert clocks.ranks["drift_us_per_s"].abs().max() < 1.0


def test_ranks_that_share_no_group_are_aligned_through_one_that_shares_with_both() -> None:
    run = job(calls=12, apart_us=1000.0, groups=2)

    aligned, clocks = align_clocks(moved(run, {0: 300.0, 2: -800.0}))

    offsets = clocks.ranks["offset_us"]
    assert (offsets - offsets[1]).tolist() == pytest.approx([300.0, 0.0, -800.0], abs=0.1)
    assert clocks.residual_us < 0.1
    assert arrivals(aligned)["wait_us"].max() == pytest.approx(7.0, abs=0.1)


def test_fewer_than_three_matches_are_not_measured() -> None:
    run = job(calls=2, apart_us=1000.0)

    same, clocks = align_clocks(run)

    assert clocks.unmeasured is not None
    assert "2 collectives matched" in clocks.unmeasured.reason
    assert same.collectives["start_us"].equals(run.collectives["start_us"])
    assert arrivals(same).empty


def test_ends_that_stay_over_100_us_apart_are_not_measured() -> None:
    run = job(calls=20, apart_us=5000.0)
    jitter = np.random.default_rng(1).uniform(-400, 400, len(run.collectives))

    same, clocks = align_clocks(replace(run, collectives=run.collectives.assign(start_us=run.collectives["start_us"] + jitter)))

    assert clocks.residual_us > 100.0
    assert clocks.unmeasured is not None
    assert "cross_rank_times" in same.missing


def test_a_run_of_one_rank_is_not_measured() -> None:
    _, clocks = align_clocks(Run())

    assert clocks.unmeasured is not None
    assert clocks.ranks.empty


@pytest.mark.corpus
def test_the_recorded_job_of_eight_ranks_is_the_same_after_shifting_and_stretching_its_clocks(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces" / "param" / "dlrm_8rank")
    shifts = {rank: 1e4 * (-1) ** rank * rank for rank in range(8)}

    _, untouched = align_clocks(run)
    aligned, clocks = align_clocks(moved(run, shifts, {3: 100e-6}))

    assert untouched.residual_us <= 7.0  # traces.md: ends agree within 1 to 7 us
    assert clocks.residual_us <= 8.0  # the stretch is 2 us in this step of 20 ms
    expected = {0: 0, 1: 0, 2: 0, 3: 0, 4: 5009, 5: 6282, 6: 0, 7: 35552}
    assert caused_waits(aligned).set_index("rank")["caused_us"].to_dict() == pytest.approx(expected, abs=20.0)
