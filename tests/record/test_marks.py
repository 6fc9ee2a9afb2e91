"""Marks: clocks that cost a system call are read where they can tell something, and nothing of what they tell is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from perfnb.record import marks as marks_module
from perfnb.record.marks import QUIET_NS, Code, Marks

SECOND = 1_000_000_000


class Clock:
    """A thread that runs or is away, as the test says, and how often it was asked."""

    def __init__(self) -> None:
        self.wall_ns, self.cpu_ns = 2 * SECOND, SECOND  # of a process that waited for a second so far
        self.asked = 0
        self.lines_read = 0

    def runs(self, spent_ns: int) -> None:
        self.wall_ns += spent_ns
        self.cpu_ns += spent_ns

    def is_away(self, spent_ns: int) -> None:
        self.wall_ns += spent_ns

    def thread_time_ns(self) -> int:
        self.asked += 1
        return self.cpu_ns

    def line(self) -> bytes:
        self.lines_read += 1
        return b"%d %d 1\n" % (self.cpu_ns, self.wall_ns - self.cpu_ns - SECOND)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clocks = SimpleNamespace(perf_counter_ns=lambda: clock.wall_ns, thread_time_ns=clock.thread_time_ns)
    monkeypatch.setattr(marks_module, "time", clocks)
    monkeypatch.setattr(marks_module.RunQueueFile, "reader", lambda _: clock.line)
    return clock


def test_a_thread_that_ran_is_not_asked_for_its_time_on_the_run_queue(clock: Clock) -> None:
    marks = Marks()
    marks.mark(Code.ENTER, "forward")
    read = clock.lines_read

    for _ in range(5):
        clock.runs(10 * QUIET_NS)
        marks.mark(Code.LEAVE, "forward")

    assert clock.lines_read == read
    assert [mark[3] - SECOND for mark in marks.taken()] == [10 * QUIET_NS * number for number in range(6)]


def test_time_away_is_read_once_it_is_long_enough_and_short_times_add_up(clock: Clock) -> None:
    marks = Marks()
    marks.mark(Code.ENTER, "forward")

    waits = []
    for _ in range(4):
        clock.runs(2 * QUIET_NS)
        clock.is_away(QUIET_NS // 2)
        marks.mark(Code.LEAVE, "forward")
        waits.append(int(marks.taken()[-1][4].split()[1]))

    assert waits == [0, 0, 3 * QUIET_NS // 2, 3 * QUIET_NS // 2]


def test_within_a_short_gap_the_thread_is_taken_to_have_run_and_the_next_reading_sets_it_right(clock: Clock) -> None:
    marks = Marks()
    marks.mark(Code.LEAVE, "data")
    asked = clock.asked

    clock.is_away(QUIET_NS // 2)
    marks.mark(Code.ENTER, "forward")
    assumed = clock.asked == asked
    clock.runs(QUIET_NS)
    marks.mark(Code.LEAVE, "forward")

    assert assumed
    assert [mark[3] - SECOND for mark in marks.taken()] == [0, QUIET_NS // 2, QUIET_NS]
