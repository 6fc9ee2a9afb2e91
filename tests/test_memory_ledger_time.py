"""What holds a memory over time: at each moment the lines sum to the allocated bytes."""

from __future__ import annotations

from perfnb.charts import memory_chart
from perfnb.memory_ledger_time import OTHERS, memory_over_time
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.tables import table_from_text

SNAPSHOT = """rank device time_us sequence action           address bytes  category   stack
              0    0      0       -1       existing         1       100    -          -
              0    0      1       1        alloc            2       50     -          torch/optim/adamw.py:7:step
              0    0      2       2        alloc            3       400    activation model.py:5:forward
              0    0      3       3        free_requested   3       -400   -          -
              0    0      4       4        alloc            3       30     -          train.py:9:_engine_run_backward"""
TRACE = """rank device time_us address bytes allocated_bytes
           0    0      1       7       10    510
           0    0      2       8       -20   490"""


def lines(text: str, **how: int) -> dict[str, list[int]]:
    found = memory_over_time(Run(allocations=table_from_text("allocations", text)), **how)  # type: ignore[arg-type]
    assert not isinstance(found, Unknown)
    return {str(name): own["bytes"].to_list() for name, own in found.groupby("measure")}


def test_each_category_is_a_line_and_the_lines_sum_to_what_is_allocated() -> None:
    found = lines(SNAPSHOT)

    assert found == {
        "existing": [100, 100, 100, 100, 100],
        "activation": [0, 0, 400, 0, 0],
        "optimizer": [0, 50, 50, 50, 50],
        "backward": [0, 0, 0, 0, 30],
    }


def test_groups_that_are_too_many_become_one_line() -> None:
    assert lines(SNAPSHOT, most_lines=2) == {
        "activation": [0, 0, 400, 0, 0],
        "existing": [100, 100, 100, 100, 100],
        OTHERS: [0, 50, 50, 50, 80],
    }


def test_what_was_allocated_before_a_trace_is_a_line_of_its_own() -> None:
    assert lines(TRACE) == {"not told": [10, 10], "before the recording": [500, 480]}


def test_peaks_stay_where_rows_are_left_out() -> None:
    assert 400 in lines(SNAPSHOT, most_rows=8)["activation"]


def test_the_chart_draws_them_and_nothing_recorded_is_unknown() -> None:
    found = memory_over_time(Run(allocations=table_from_text("allocations", SNAPSHOT)), by="stack")

    assert not isinstance(found, Unknown)
    assert memory_chart(found).to_dict()["layer"]
    assert isinstance(memory_over_time(Run()), Unknown)
