"""What a recording tells of now: by hand-made rows, whole and damaged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from perfnb.read.newest import MOST_POINTS, now_of
from perfnb.read.run_folder import newest_rows
from perfnb.record.rows import COLUMNS
from perfnb.record.run_folder import FolderSink
from perfnb.record.sink import MemorySink

HEADER: dict[str, Any] = {"rank": 0, "world_size": 2, "monotonic_ns": 0, "wall_ns": 0, "host": "box", "schema_version": 1}
SECOND = 10**9


def row(table: str, /, **values: Any) -> tuple[Any, ...]:
    return tuple(values.get(name) for name in COLUMNS[table])


def test_pace_and_share_of_waiting_are_those_of_the_last_ten_seconds() -> None:
    sink = MemorySink(HEADER)
    early = [row("steps", step=n, start_ns=n * SECOND, end_ns=(n + 1) * SECOND) for n in range(5)]
    late = [
        row("steps", step=5 + n, start_ns=100 * SECOND + n * SECOND // 2, end_ns=100 * SECOND + (n + 1) * SECOND // 2)
        for n in range(4)
    ]
    sink.append("steps", [*early, *late])
    sink.append("phases", [row("phases", step=n, phase="data", wall_ns=SECOND / 4) for n in range(9)])

    now = now_of([sink], 103 * SECOND).ranks[0]

    assert (now.step, now.steps_per_s, now.step_us, now.data_share, now.age_s) == (8, 2.0, 500_000.0, 0.5, 1.0)


def test_each_column_has_its_newest_value_for_some_are_sampled_less_often() -> None:
    sink = MemorySink(HEADER)
    sink.append("host_samples", [row("host_samples", time_ns=1, cpu_share=0.1, pressure_cpu_share=0.7)])
    sink.append("host_samples", [row("host_samples", time_ns=2, cpu_share=0.2)])
    sink.append("gpu_samples", [row("gpu_samples", gpu=n % 2, time_ns=n, utilization_share=n / 10) for n in range(4)])
    sink.append("gaps", [row("gaps", table="gpu_samples", column="power_w", device=1, reason="Not Supported", count=1)])

    now = now_of([sink], 2).ranks[0]

    assert now.host_values["cpu_share"] == 0.2
    assert now.host_values["pressure_cpu_share"] == 0.7
    assert [(each.number, each.newest["utilization_share"], dict(each.reasons)) for each in now.devices] == [
        (0, 0.2, {}),
        (1, 0.3, {"power_w": "Not Supported"}),
    ]


def test_a_recording_without_rows_knows_nothing_and_says_so_by_nan() -> None:
    now = now_of([MemorySink({**HEADER, "host": 7})], 5)

    assert now.ranks[0].step is None
    assert math.isnan(now.ranks[0].age_s)
    assert (now.ranks[0].host, now.world_size, now.history) == ("", 2, ())
    assert now_of([], 5).is_over


def test_what_is_no_number_is_left_out() -> None:
    sink = MemorySink(HEADER)
    sink.append("steps", [("a", "b", None), (1, 0, True), (2, 0), (3, 0, SECOND)])
    sink.append("values", [row("values", step=0, time_ns="x", name="loss", value="NaN"), row("values", name="loss", value=0.5)])
    sink.append("gpu_samples", [row("gpu_samples", gpu="x", time_ns=1, utilization_share=float("inf"))])
    sink.append("host_samples", [row("host_samples", time_ns=1, cpu_share=5.0, memory_bytes=1, memory_limit_bytes=0)])

    now = now_of([sink], 2 * SECOND)

    assert (now.ranks[0].step, now.ranks[0].loss, now.ranks[0].devices) == (3, 0.5, ())
    assert now.history == (("CPU of the host", 0.0, 1.0),)


def test_the_history_is_thinned() -> None:
    sink = MemorySink(HEADER)
    sink.append("host_samples", [row("host_samples", time_ns=n, cpu_share=0.5) for n in range(1000)])

    assert 0 < len(now_of([sink], 0).history) <= MOST_POINTS


def test_of_a_long_recording_the_newest_rows_are_read(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, HEADER)
    sink.append("steps", [(step, step * SECOND, (step + 1) * SECOND, False, 0, 1) for step in range(20_000)])

    (newest,) = newest_rows(tmp_path, 100)
    sink.close("finished", "")

    steps = [each[0] for each in newest.rows["steps"]]
    assert steps[-1] == 19_999
    assert steps == list(range(steps[0], 20_000))
    assert 100 <= len(steps) < 2_000
