"""Bandwidth of collectives by the formulas of the NCCL tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import perfnb
from perfnb.analyses.bus_bandwidth import bandwidth_summary, bus_bandwidth
from perfnb.run import Run
from perfnb.tables import table_from_text

HEADER = "rank group sequence collective group_size elements_in elements_out bytes start_us duration_us clock\n"


def run_of(text: str) -> Run:
    return Run(collectives=table_from_text("collectives", HEADER + text))


@pytest.mark.parametrize(
    ("collective", "elements_in", "elements_out", "size", "factor"),
    [
        ("all_reduce", 1000, 1000, 4000, 1.5),
        ("reduce_scatter", 1000, 250, 4000, 0.75),
        ("all_gather", 250, 1000, 4000, 0.75),
        ("all_to_all", 1000, 1000, 4000, 0.75),
        ("broadcast", 1000, 1000, 4000, 1.0),
        ("reduce", 1000, 1000, 4000, 1.0),
    ],
)
def test_bus_bandwidth_is_the_whole_array_over_the_time_times_the_factor(
    collective: str, elements_in: int, elements_out: int, size: int, factor: float
) -> None:
    run = run_of(f"0 dp 1 {collective} 4 {elements_in} {elements_out} {4 * elements_in} 0 20 device")

    found = bus_bandwidth(run).iloc[0]

    assert found["size_bytes"] == size
    assert found["algorithm_bytes_per_s"] == pytest.approx(200e6)
    assert found["bus_bytes_per_s"] == pytest.approx(200e6 * factor)


def test_an_all_gather_without_its_output_is_sized_by_the_number_of_ranks() -> None:
    found = bus_bandwidth(run_of("0 dp 1 all_gather 4 250 - 1000 0 20 device"))

    assert found["size_bytes"].tolist() == [4000.0]


def test_with_every_rank_there_the_shortest_duration_counts_and_waiting_does_not() -> None:
    run = run_of("0 dp 1 all_reduce 2 250 250 1000 0 90 device\n1 dp 1 all_reduce 2 250 250 1000 80 10 device")

    found = bus_bandwidth(run)

    assert found["time_us"].tolist() == [10.0, 10.0]
    assert found["bus_bytes_per_s"].tolist() == pytest.approx([100e6, 100e6])
    assert found["is_lower_bound"].tolist() == [False, False]
    assert bandwidth_summary(found)["calls"].tolist() == [1]


def test_one_rank_alone_gives_a_lower_bound_and_says_so() -> None:
    found = bus_bandwidth(run_of("0 dp 1 all_reduce 2 250 250 1000 0 90 device"))

    assert found[["time_source", "is_lower_bound"]].to_numpy().tolist() == [["own duration", True]]


def test_what_was_not_recorded_is_missing_and_not_zero() -> None:
    found = bus_bandwidth(run_of("0 dp 1 all_reduce - 250 250 1000 0 90 device\n0 dp 2 all_reduce 2 - - - 100 90 device"))

    assert found["bus_bytes_per_s"].isna().all()
    assert found["reached_share"].isna().all()
    assert bandwidth_summary(found).empty


def test_a_given_speed_of_the_link_is_what_calls_are_measured_against() -> None:
    found = bus_bandwidth(run_of("0 dp 1 all_reduce 2 250 250 1000 0 10 device"), 400e6)

    assert found["reached_share"].tolist() == pytest.approx([0.25])
    assert found["reachable_source"].tolist() == ["given"]


def test_without_one_the_best_call_alike_stands_for_it_and_a_single_call_has_none() -> None:
    alike = "0 dp 1 all_reduce 2 250 250 1000 0 10 device\n0 dp 2 all_reduce 2 250 250 1000 50 40 device\n"
    run = run_of(alike + "0 dp 3 all_reduce 2 99999 99999 399996 100 40 device")

    found = bus_bandwidth(run)

    assert found["reached_share"].iloc[:2].tolist() == pytest.approx([1.0, 0.25])
    assert found["reachable_source"].iloc[0] == "best of this run"
    assert found["reached_share"].isna().iloc[2]


def test_types_without_a_formula_are_left_out() -> None:
    assert bus_bandwidth(run_of("0 pp 1 send 2 250 - 1000 0 10 device")).empty
    assert bandwidth_summary(bus_bandwidth(Run())).empty


@pytest.mark.corpus
def test_recorded_all_reduces_have_the_bandwidth_of_their_own_arguments(corpus: Path) -> None:
    run = perfnb.read_trace(corpus / "traces" / "tracelens" / "mi300x_resnet_act_checkpoint")

    found = bus_bandwidth(run)
    largest = found[found["size_bytes"].eq(17_632_384)]

    assert len(found) == 12
    assert largest["bus_bytes_per_s"].iloc[0] == pytest.approx(17_632_384 / 8932.626e-6 * 14 / 8)
    assert found["is_lower_bound"].all()
