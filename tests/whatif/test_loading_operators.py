"""What the operators inside a loader span tell, on one span of 100 us written out."""

from __future__ import annotations

import pandas as pd
import pytest

from perfnb.tables import table_from_text
from perfnb.whatif.loading_operators import loading_operators
from perfnb.whatif.uncertainty import Estimate

COLUMNS = "rank process thread category name start_us duration_us\n"
LOADER = '0 1 1 annotation "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__" 0 100\n'
SAMPLES = """0 1 1 operator aten::randint 2  1
0 1 1 operator aten::select  10 5
0 1 1 operator aten::sort    20 10
0 1 1 operator aten::copy_   22 4
0 1 1 operator aten::select  40 5
0 1 1 operator aten::sort    50 20
"""
COLLATE = """0 1 1 operator aten::stack   80 8
0 1 1 operator aten::empty   81 1
0 1 1 operator aten::stack   90 4
"""


def host(*rows: str) -> pd.DataFrame:
    return table_from_text("host_ops", COLUMNS + "".join(rows))


def test_what_remains_with_cached_samples_starts_where_the_last_sample_ends() -> None:
    found = loading_operators(host(LOADER, SAMPLES, COLLATE), 0, 1000)

    assert found is not None
    # least: the two stacks, 12; likely: from the last sort's end at 70 to the end, 30; most: also the 10 before the first sample
    assert found.collate_us == Estimate(30.0, 12.0, 40.0)


def test_operators_are_the_part_of_loading_that_is_surely_computing() -> None:
    found = loading_operators(host(LOADER, SAMPLES, COLLATE), 0, 1000)

    assert found is not None
    assert found.share == pytest.approx(0.53)  # 1 + 5 + 10 + 5 + 20 + 8 + 4, nested ones not twice


def test_operators_of_other_threads_and_later_times_do_not_count() -> None:
    other = "0 1 2 operator aten::sort 30 50\n"
    later = "0 1 1 operator aten::mm 100 50\n"

    found = loading_operators(host(LOADER, SAMPLES, COLLATE, other, later), 0, 1000)

    assert found is not None
    assert found.share == pytest.approx(0.53)


@pytest.mark.parametrize("rows", [(LOADER,), (LOADER, SAMPLES)])
def test_without_a_collate_operator_its_cost_is_not_known(rows: tuple[str, ...]) -> None:
    found = loading_operators(host(*rows), 0, 1000)

    assert found is not None
    assert found.collate_us is None


def test_a_wait_for_worker_processes_tells_nothing_of_collating() -> None:
    waiting = LOADER.replace("SingleProcess", "MultiProcessing")

    found = loading_operators(host(waiting, COLLATE), 0, 1000)

    assert found is not None
    assert found.in_workers
    assert found.collate_us is None


def test_a_trace_without_a_loader_tells_nothing() -> None:
    assert loading_operators(host(SAMPLES), 0, 1000) is None
