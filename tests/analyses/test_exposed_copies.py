"""Copies to a device that nothing hides."""

from __future__ import annotations

from perfnb.analyses.exposed_copies import exposed_copies
from perfnb.tables import table_from_text

STEPS = table_from_text("steps", "rank step start_us duration_us\n0 7 0 100\n0 8 100 100")


def copied(ops: str) -> list[list[float]]:
    table = table_from_text("device_ops", f"rank device stream kind name start_us duration_us\n{ops}")
    found: list[list[float]] = exposed_copies(table, STEPS)[["exposed_us", "pageable_us"]].to_numpy().tolist()
    return found


def test_two_copies_at_once_count_once_and_are_cut_at_the_edge_of_a_step() -> None:
    ops = '0 0 7 copy "Memcpy HtoD (Pageable -> Device)" 80 40\n0 0 8 copy "Memcpy HtoD (Pinned -> Device)" 70 20'

    assert copied(ops) == [[30.0, 20.0], [20.0, 20.0]]


def test_computing_and_communication_hide_a_copy() -> None:
    ops = '0 0 7 copy "Memcpy HtoD (Pinned -> Device)" 0 30\n0 0 8 compute gemm 0 10\n0 0 9 communication nccl 20 10'

    assert copied(ops) == [[10.0, 0.0], [0.0, 0.0]]


def test_other_directions_and_unknown_ones_are_left_out() -> None:
    assert copied('0 0 7 copy "Memcpy DtoH (Device -> Pinned)" 0 30\n0 0 7 copy memcpy 40 30') == []
