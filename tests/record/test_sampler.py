"""The background thread: its timetable, its failures, and its end in every way that a process can end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfnb.record.gaps import MOST_REASONS, Gaps
from perfnb.record.sampler import FAILURES_IN_A_ROW, Sampler
from perfnb.record.sink import MemorySink

MS = 1_000_000


class Ticks:
    """A collector that notes when it was asked."""

    def __init__(
        self, table: str = "host_samples", interval_s: float = 0.1, fails: Callable[[int], bool] = lambda _: False
    ) -> None:
        self.table, self.interval_s, self.gaps = table, interval_s, Gaps()
        self.asked_ns: list[int] = []
        self.closed = self.abandoned = 0
        self._fails = fails

    def collect(self, now_ns: int) -> dict[str, list[tuple[int]]]:
        """One row with the moment, or an exception."""
        self.asked_ns.append(now_ns)
        if self._fails(len(self.asked_ns)):
            message = "no luck"
            raise ValueError(message)
        return {self.table: [(now_ns,)]}

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def abandon(self) -> None:
        """Count."""
        self.abandoned += 1


class FullDisk(MemorySink):
    """A sink that refuses the rows of one table."""

    def append(self, table: str, rows: Any) -> None:
        """As on a full disk."""
        if table == "host_samples":
            message = "No space left on device"
            raise OSError(message)
        super().append(table, rows)


@pytest.fixture
def sink() -> MemorySink:
    """A sink in memory."""
    return MemorySink({})


@pytest.fixture
def started() -> Iterator[Callable[..., Sampler]]:
    """Start samplers, and stop them whatever happens."""
    samplers: list[Sampler] = []

    def start(*given: Any, **named: Any) -> Sampler:
        samplers.append(Sampler(*given, **named))
        samplers[-1].start()
        return samplers[-1]

    yield start
    for sampler in samplers:
        sampler.stop()


def _run(sampler: Sampler, *moments_ms: int) -> list[float]:
    """Turns at these moments; what each says is due next."""
    sampler.begin(0)
    return [sampler.turn(moment * MS) / MS for moment in moments_ms]


def _waiting_for(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until and not condition():
        time.sleep(0.005)
    return condition()


def test_collectors_are_asked_at_their_own_intervals(sink: MemorySink) -> None:
    fast, slow = Ticks(interval_s=0.1), Ticks("gpu_samples", interval_s=0.25)
    sampler = Sampler(sink, [fast, slow])

    due_ms = _run(sampler, 0, 100, 200, 250, 300)

    assert [moment // MS for moment in fast.asked_ns] == [0, 100, 200, 300]
    assert [moment // MS for moment in slow.asked_ns] == [0, 250]
    assert due_ms == [100, 200, 250, 300, 400]


def test_being_late_is_not_made_up_for_and_the_grid_stays(sink: MemorySink) -> None:
    collector = Ticks(interval_s=0.1)
    sampler = Sampler(sink, [collector])

    due_ms = _run(sampler, 0, 437, 440, 500)

    assert [moment // MS for moment in collector.asked_ns] == [0, 437, 500]
    assert due_ms == [100, 500, 500, 600]


def test_rows_reach_the_sink_every_half_second_with_those_of_the_recorder(sink: MemorySink) -> None:
    collector = Ticks()
    drained = iter([{"steps": [(1,)]}, None, {"steps": [(2,)]}])
    sampler = Sampler(sink, [collector], [lambda: next(drained)])

    _run(sampler, 0, 100)
    before = list(sink.rows["host_samples"])
    for moment in (500, 600, 1_000):
        sampler.turn(moment * MS)
    sampler.finish(1_060 * MS)

    assert before == []
    assert [moment // MS for (moment,) in sink.rows["host_samples"]] == [0, 100, 500, 600, 1_000, 1_060]
    assert sink.rows["steps"] == [(1,), (2,)]


def test_a_collector_that_was_asked_a_moment_ago_is_not_asked_again_at_the_end(sink: MemorySink) -> None:
    collector = Ticks(interval_s=1.0)
    sampler = Sampler(sink, [collector])

    _run(sampler, 0, 1_000)
    sampler.finish(1_400 * MS)

    assert [moment // MS for moment in collector.asked_ns] == [0, 1_000]
    assert collector.closed == 1


def test_an_exception_of_a_collector_becomes_a_gap_and_the_others_go_on(sink: MemorySink) -> None:
    broken, sound = Ticks(fails=lambda call: call <= 3), Ticks("gpu_samples")
    sampler = Sampler(sink, [broken, sound])

    _run(sampler, *range(0, 1_000, 100))
    sampler.finish(1_000 * MS)

    assert len(sink.rows["host_samples"]) == 8
    assert len(sink.rows["gpu_samples"]) == 11
    assert sink.rows["gaps"] == [
        ("host_samples", None, None, "ValueError: no luck", 0, 3)
    ]  # written at the first delivery; the count did not rise since


def test_a_collector_that_fails_ten_times_in_a_row_is_not_asked_again(sink: MemorySink) -> None:
    broken = Ticks(fails=lambda _: True)
    sampler = Sampler(sink, [broken])

    _run(sampler, *range(0, 3_000, 100))
    sampler.finish(3_000 * MS)

    assert len(broken.asked_ns) == FAILURES_IN_A_ROW
    assert sink.rows["gaps"] == [
        ("host_samples", None, None, "ValueError: no luck", 0, 6),
        ("host_samples", None, None, "failed 10 times in a row and was not asked again", 900 * MS, 1),
        ("host_samples", None, None, "ValueError: no luck", 0, 10),
    ]


def test_failures_with_a_success_in_between_are_no_reason_to_give_up(sink: MemorySink) -> None:
    flaky = Ticks(fails=lambda call: call % 9 != 0)
    sampler = Sampler(sink, [flaky])

    _run(sampler, *range(0, 4_000, 100))

    assert len(flaky.asked_ns) == 40


def test_gaps_are_written_when_first_seen_and_with_their_counts_at_the_end(sink: MemorySink) -> None:
    collector, own = Ticks(), Gaps()
    sampler = Sampler(sink, [collector], gaps=own)

    _run(sampler, 0)
    collector.gaps.note("host_samples", "load_1m", None, "gone", 7)
    own.note("phases", "device_us", 0, "no event", 9)
    sampler.turn(500 * MS)
    collector.gaps.note("host_samples", "load_1m", None, "gone", 8, count=4)
    sampler.turn(1_000 * MS)
    sampler.finish(1_500 * MS)

    assert sink.rows["gaps"] == [
        ("host_samples", "load_1m", None, "gone", 7, 1),
        ("phases", "device_us", 0, "no event", 9, 1),
        ("host_samples", "load_1m", None, "gone", 7, 5),
    ]


def test_rows_that_cannot_be_written_are_counted(sink: MemorySink) -> None:
    full = FullDisk({})
    sampler = Sampler(full, [Ticks(), Ticks("gpu_samples")])

    _run(sampler, *range(0, 600, 100))
    sampler.finish(600 * MS)

    assert len(full.rows["gpu_samples"]) == 7
    assert full.rows["gaps"][-1] == (
        "host_samples", None, None, "rows could not be written: OSError: No space left on device", 500 * MS, 7,
    )  # fmt: skip


def test_a_recorder_that_cannot_drain_and_a_collector_that_cannot_close_are_gaps(sink: MemorySink) -> None:
    collector = Ticks()

    def refuse() -> None:
        message = "not now"
        raise KeyError(message)

    collector.close = refuse  # type: ignore[method-assign]
    sampler = Sampler(sink, [collector], [refuse, lambda: {"steps": [(1,)]}])

    _run(sampler, 0)
    sampler.finish(100 * MS)

    assert sink.rows["steps"] == [(1,)]
    assert [gap[3] for gap in sink.rows["gaps"]] == [
        "could not be closed: KeyError: 'not now'",
        "rows of the recorder could not be taken: KeyError: 'not now'",
    ]


def test_reasons_that_differ_each_time_do_not_fill_the_memory() -> None:
    gaps = Gaps()

    for number in range(MOST_REASONS + 50):
        gaps.note("gpu_samples", None, None, f"error at {number}", number)

    rows = gaps.changed()
    assert len(rows) == MOST_REASONS + 1
    assert rows[-1][5] == 50


def test_the_thread_collects_by_itself_and_stops_at_once(sink: MemorySink, started: Callable[..., Sampler]) -> None:
    collector = Ticks(interval_s=0.01)
    sampler = started(sink, [collector, Ticks("gpu_samples", interval_s=3600)], [lambda: {"steps": [(1,)]}])

    assert _waiting_for(lambda: len(collector.asked_ns) >= 5)
    began = time.monotonic()
    sampler.stop()

    assert time.monotonic() - began < 2
    assert not sampler.is_running
    assert sampler.cpu_ns > 0
    assert len(sink.rows["host_samples"]) == len(collector.asked_ns)
    assert sink.rows["steps"]
    assert collector.closed == 1


def test_starting_twice_is_one_thread_and_a_second_sampler_is_refused(sink: MemorySink, started: Callable[..., Sampler]) -> None:
    sampler = started(sink, [Ticks()])
    sampler.start()

    with pytest.raises(RuntimeError, match="already runs"):
        Sampler(sink).start()

    assert [thread.name for thread in threading.enumerate()].count("perfnb-sampler") == 1


def test_another_sampler_may_start_once_the_first_has_stopped(sink: MemorySink, started: Callable[..., Sampler]) -> None:
    first = started(sink)
    first.stop()
    first.stop()

    second = started(sink)

    assert second.is_running
    with pytest.raises(RuntimeError, match="was stopped"):
        first.start()


def test_a_collector_that_hangs_delays_the_end_by_no_more_than_was_asked(
    sink: MemorySink, started: Callable[..., Sampler]
) -> None:
    released, hanging = threading.Event(), threading.Event()
    collector = Ticks()

    def hang(now_ns: int) -> dict[str, list[tuple[int]]]:
        hanging.set()
        released.wait(30)
        return {"host_samples": [(now_ns,)]}

    collector.collect = hang  # type: ignore[method-assign]
    sampler = started(sink, [collector], [lambda: {"steps": [(1,)]}])
    assert hanging.wait(10)

    began = time.monotonic()
    sampler.stop(timeout_s=0.2)

    assert time.monotonic() - began < 5
    assert sink.rows["steps"] == [(1,)]
    assert sink.rows["gaps"][-1][3] == "the thread of the samplers did not end in time"
    released.set()
    assert _waiting_for(lambda: not sampler.is_running)
    assert sink.rows["host_samples"] == []  # what comes after the end is dropped


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and later, of a process with threads
def test_a_forked_child_forgets_the_sampler_and_may_start_one_of_its_own(
    sink: MemorySink, started: Callable[..., Sampler]
) -> None:
    collector = Ticks(interval_s=0.01)
    sampler = started(sink, [collector])
    assert _waiting_for(lambda: len(collector.asked_ns) >= 2)
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        was = collector.abandoned, sampler.is_running, len(collector.asked_ns)
        sampler.stop()
        own = Sampler(MemorySink({}), [Ticks()])
        own.start()
        own.stop()
        is_right = was[:2] == (1, False) and len(collector.asked_ns) == was[2] and own.cpu_ns > 0
        os.write(writing, b"right" if is_right else b"wrong")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 5) == b"right"
    count = len(collector.asked_ns)
    assert _waiting_for(lambda: len(collector.asked_ns) > count)
    assert collector.abandoned == 0
    os.close(reading)
    os.close(writing)


PRELUDE = """
import os, signal, sys, threading, time
from pathlib import Path
from perfnb.record.gaps import MOST_REASONS, Gaps
from perfnb.record.host import HostCollector
from perfnb.record.sampler import Sampler

MAIN = os.getpid()
class File:
    header = {}
    def append(self, table, rows):
        with open(sys.argv[1], "a") as file:
            file.writelines(f"{table} {os.getpid() == MAIN}\\n" for _ in rows)
    def close(self, state, reason): ...

steps = iter(range(10**9))
sampler = Sampler(File(), [HostCollector(interval_s=0.02)], [lambda: {"steps": [(next(steps),)]}])
sampler.start()
"""


def _process(tmp_path: Path, code: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    path = tmp_path / "rows"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_a_program_that_just_ends_loses_nothing_and_prints_nothing(tmp_path: Path) -> None:
    done, rows = _process(tmp_path, "time.sleep(0.1)")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert rows.count("steps True") >= 1
    assert rows.count("host_samples True") >= 2


def test_a_program_that_raises_ends_as_it_would_without_us(tmp_path: Path) -> None:
    done, rows = _process(tmp_path, "time.sleep(0.1)\nraise SystemExit(3)")

    assert (done.returncode, done.stderr) == (3, "")
    assert "steps True" in rows


def test_an_interrupt_reaches_the_program_while_the_thread_runs_and_the_thread_stops_after_it(tmp_path: Path) -> None:
    done, rows = _process(
        tmp_path,
        """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            print("interrupted", sampler.is_running)
        sampler.stop()
        print(sampler.is_running)
        """,
    )

    assert (done.stdout, done.stderr) == ("interrupted True\nFalse\n", "")
    assert "steps True" in rows


def test_processes_that_a_program_forks_while_it_is_sampled_end_and_add_no_rows(tmp_path: Path) -> None:
    done, rows = _process(
        tmp_path,
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of a process with threads
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=time.sleep, args=(0.05,)) for _ in range(4)]
        for child in children: child.start()
        for child in children: child.join(20)
        print([child.exitcode for child in children])
        """,
    )

    assert done.stdout == "[0, 0, 0, 0]\n"
    assert "steps True" in rows
    assert not [row for row in rows if row.endswith("False")]
