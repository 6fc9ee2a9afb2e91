"""Calls matched across ranks, who waited there, and who is a straggler."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfnb
from perfnb.analyses.arrivals import arrivals, arrivals_summary, longest_waits
from perfnb.analyses.matched_calls import matched_calls
from perfnb.analyses.stragglers import caused_waits, stragglers, stragglers_summary
from perfnb.run import Run
from perfnb.tables import conform, table_from_text

HEADER = "rank group sequence collective group_size members stream start_us duration_us clock\n"


def run_of(text: str, **more: object) -> Run:
    """Run with the calls of a text, columns as in `HEADER`."""
    return replace(Run(), collectives=table_from_text("collectives", HEADER + text), **more)  # type: ignore[arg-type]


def stepped(late_us: list[float], step_us: float = 1000.0) -> Run:
    """Two ranks, one all-reduce a step; rank 1 arrives so much later than rank 0 (earlier where negative)."""
    calls, steps = [], []
    for number, late in enumerate(late_us):
        begin = number * step_us
        starts = (begin + 500 - min(late, 0.0), begin + 500 + max(late, 0.0))
        end = max(starts) + 10
        for rank, start in enumerate(starts):
            calls.append((rank, "dp", number + 7, "all_reduce", 2, start, end - start, "device"))
            steps.append((rank, number, begin, step_us))
    columns = ["rank", "group", "sequence", "collective", "group_size", "start_us", "duration_us", "clock"]
    return Run(
        collectives=conform("collectives", pd.DataFrame(calls, columns=columns)),
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
    )


def test_each_rank_waits_until_the_last_has_come_and_the_shortest_duration_is_the_transfer() -> None:
    run = run_of(
        "0 dp 4 all_reduce 3 - - 10 30 device\n1 dp 4 all_reduce 3 - - 25 15 device\n2 dp 4 all_reduce 3 - - 18 22 device"
    )

    found = arrivals(run)

    assert found["wait_us"].tolist() == [15.0, 0.0, 7.0]
    assert found["last_rank"].tolist() == [1, 1, 1]
    assert found["transfer_us"].tolist() == [15.0, 15.0, 15.0]


def test_recorded_sequence_numbers_match_calls_though_one_rank_began_recording_later() -> None:
    run = run_of("0 dp 4 all_reduce 2 - - 0 9 device\n0 dp 5 all_reduce 2 - - 20 9 device\n1 dp 5 all_reduce 2 - - 26 3 device")

    found = arrivals(run)

    assert found[["sequence", "rank", "wait_us"]].to_numpy().tolist() == [[5, 0, 6.0], [5, 1, 0.0]]
    assert "1 call that not every rank of the group recorded" in arrivals_summary(run)


def test_positions_are_no_sequence_numbers_where_ranks_differ_in_their_calls() -> None:
    run = run_of("0 dp - all_reduce 2 - - 0 9 device\n0 dp - all_reduce 2 - - 20 9 device\n1 dp - all_reduce 2 - - 26 3 device")

    found = arrivals(run)

    assert found.empty
    assert "1 on one rank, 2 on another, and no recorded sequence number" in arrivals_summary(run)


def test_calls_without_a_group_are_taken_for_one_group_per_stream_and_that_is_said() -> None:
    text = "0 - - all_reduce - - 7 0 10 device\n0 - - all_to_all - - 9 3 10 device\n"
    run = run_of(text + "1 - - all_reduce - - 20 4 6 device\n1 - - all_to_all - - 24 1 12 device")

    found = arrivals(run)

    assert found[["collective", "rank", "wait_us"]].astype(object).to_numpy().tolist() == [
        ["all_reduce", 0, 4.0],
        ["all_reduce", 1, 0.0],
        ["all_to_all", 0, 0.0],
        ["all_to_all", 1, 2.0],
    ]
    assert "4 calls without a recorded group" in arrivals_summary(run)


def test_a_group_with_missing_ranks_is_left_out_and_said_so() -> None:
    run = run_of("0 - 1 all_reduce - - - 0 9 device\n1 - 1 all_reduce - - - 4 5 device", world_size=128)

    summary = stragglers_summary(run)

    assert arrivals(run).empty
    assert stragglers(run).empty
    assert summary.startswith("Not measured")
    assert "2 of 128 ranks were read" in summary


def test_sends_and_receives_are_left_out_and_said_so() -> None:
    run = run_of("0 pp 1 send 2 - - 0 9 device\n1 pp 1 recv 2 - - 4 5 device")

    assert arrivals(run).empty
    assert "2 calls of send or receive" in arrivals_summary(run)


def test_two_groups_of_one_name_are_told_apart_by_their_members_only() -> None:
    unlisted = [f"{rank} tp 3 all_reduce 2 {{}} - {10 * rank} {50 - 10 * rank} device" for rank in range(4)]
    listed = "\n".join(line.format("0,1" if line[0] in "01" else "2,3") for line in unlisted)

    apart, together = (arrivals(run_of(text)) for text in (listed, "\n".join(unlisted).replace("{}", "-")))

    assert apart["wait_us"].tolist() == [10.0, 0.0, 10.0, 0.0]
    assert together.empty


def test_overlapping_groups_are_said_so() -> None:
    text = "0 dp 1 all_reduce 2 - - 0 9 device\n1 dp 1 all_reduce 2 - - 4 5 device\n"
    apart = run_of(text)
    overlapping = run_of(text + "1 tp 1 all_reduce 2 - - 20 9 device\n2 tp 1 all_reduce 2 - - 20 9 device")

    assert "overlap" not in stragglers_summary(apart)
    assert "Groups overlap" in stragglers_summary(overlapping)


def test_clocks_that_disagree_are_not_measured_rather_than_blamed_on_a_rank() -> None:
    run = run_of("0 dp 1 all_reduce 2 - - 0 9 device\n1 dp 1 all_reduce 2 - - 5000 9 device")

    assert arrivals(run).empty
    assert "align_clocks" in stragglers_summary(run)


def test_a_rank_that_is_late_in_most_steps_is_a_straggler_per_step_without_the_edges() -> None:
    run = stepped([40.0, 20.0, 30.0, 40.0, 0.0, 900.0])
    edges = run.steps["step"].isin([0, 5])

    found = stragglers(replace(run, steps=run.steps.assign(is_edge=edges)))

    assert found["rank"].tolist() == [1]
    assert found.loc[0, ["steps", "steps_over", "caused_us"]].tolist() == [4, 3, 22.5]
    assert found.loc[0, "step_share"] == pytest.approx(0.0225)


def test_a_rank_late_in_few_of_many_steps_is_none() -> None:
    run = stepped([300.0, 0.0, 0.0, 0.0, 0.0, 200.0])

    assert stragglers(run).empty
    assert stragglers_summary(run).startswith("No straggler: rank 1 holds the others up most, by 8.3 % of a step")


@pytest.mark.parametrize(("late", "names"), [(9.0, []), (11.0, [1])])
def test_one_per_cent_of_the_step_parts_stragglers_from_none(late: float, names: list[int]) -> None:
    run = stepped([late] * 8)

    assert stragglers(run)["rank"].tolist() == names


def test_no_collectives_is_not_measured_and_never_none() -> None:
    assert stragglers(Run()).empty
    assert stragglers_summary(Run()) == "Not measured: no collective was recorded."


def test_longest_waits_keep_whole_calls_in_order_of_time() -> None:
    found = arrivals(stepped([10.0, 30.0, 20.0]))

    chosen = longest_waits(found, calls=2)

    assert chosen["wait_us"].tolist() == [30.0, 0.0, 20.0, 0.0]


def test_many_ranks_agree_with_a_loop_over_every_call_within_a_second() -> None:
    ranks, calls = 64, 2000
    generator = np.random.default_rng(3)
    start = np.arange(calls) * 1000.0 + generator.integers(0, 100, (ranks, calls))
    end = start.max(axis=0) + 50
    frame = pd.DataFrame(
        {
            "rank": np.repeat(np.arange(ranks), calls),
            "group": "0",
            "sequence": np.tile(np.arange(calls) + 5, ranks),
            "collective": "all_reduce",
            "group_size": ranks,
            "start_us": start.ravel(),
            "duration_us": (end - start).ravel(),
            "clock": "device",
        }
    )
    run = Run(collectives=conform("collectives", frame.sample(frac=1, random_state=1)))

    begun = time.process_time()
    caused = caused_waits(run).set_index("rank")["caused_us"]
    spent = time.process_time() - begun

    expected = np.zeros(ranks)
    for call in range(calls):
        expected[int(start[:, call].argmax())] += (start[:, call].max() - start[:, call]).sum()
    assert caused.to_numpy() == pytest.approx(expected)
    assert spent < 2.0  # about 0.3 s on a quiet core


@pytest.mark.corpus
def test_the_recorded_job_of_eight_ranks_waits_for_the_ranks_that_are_known(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces" / "param" / "dlrm_8rank")

    caused = caused_waits(run).set_index("rank")

    assert caused["caused_us"].to_dict() == pytest.approx({0: 0, 1: 0, 2: 0, 3: 0, 4: 5009, 5: 6282, 6: 0, 7: 35552})
    assert caused.loc[7, "caused_share"] == pytest.approx(0.76, abs=0.005)
    assert stragglers(run)["rank"].tolist() == [7, 5, 4]


@pytest.mark.corpus
def test_two_of_many_recorded_ranks_are_not_measured(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces" / "hta" / "sampled_2_of_128")

    assert stragglers(run).empty
    assert stragglers_summary(run).startswith("Not measured")


def test_the_recorded_slow_rank_of_two_is_found_and_none_after_its_remedy(repository: Path) -> None:
    folder = repository / "data" / "samples" / "slow_rank"

    found = stragglers(perfnb.read_trace(folder))

    assert found["rank"].tolist() == [1]
    assert found.loc[0, "steps_over"] == found.loc[0, "steps"]


@pytest.mark.corpus
def test_a_real_job_with_one_slow_worker_waits_for_its_replica_alone(corpus: Path) -> None:
    pytest.importorskip("pyarrow", reason="the recorded job is a Parquet file")
    table = pd.read_parquet(corpus / "stragglers" / "trace-AR.parquet")
    chosen = table[table["optype"].isin(["grads-reduce-scatter", "params-all-gather"])]
    number = chosen["step"].rank(method="dense").astype("int64") - 1
    calls = chosen.assign(
        group="stage " + chosen["stage"].astype(str),
        sequence=number + 1,
        collective=chosen["optype"].astype(object).map({"grads-reduce-scatter": "reduce_scatter"}).fillna("all_gather"),
        group_size=4,
        start_us=(chosen["start_ts"].astype("float64") + number * 100) * 1e6,  # the recording counts from each step's start
        duration_us=chosen["duration"].astype("float64") * 1e6,
        clock="host",
    )
    steps = [(rank, step, step * 1e8, 5e7) for rank in calls["rank"].unique() for step in sorted(number.unique())]
    run = Run(
        collectives=conform("collectives", calls),
        steps=conform("steps", pd.DataFrame(steps, columns=["rank", "step", "start_us", "duration_us"])),
    )

    late = stragglers(run)["rank"]

    # README: the slow worker is replica (dp) 0; its pipeline hands the delay on to its other stages, ranks 16, 32 and 48.
    assert len(matched_calls(run).rows) == len(chosen)
    assert sorted(late) == sorted(chosen.loc[chosen["dp_rank"].eq(0), "rank"].unique())
