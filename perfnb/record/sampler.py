"""The one background thread of a recording: it asks collectors at their intervals and hands rows to the sink."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from perfnb.record.collector import Collector, Flusher
from perfnb.record.gaps import Gaps
from perfnb.record.sink import Row, Sink

FLUSH_S: Final = 0.5
"""Between two deliveries to the sink: with what the sink itself holds back, a killed process loses less than a second."""

STOP_S: Final = 5.0
"""`stop` waits at most this long for the thread: a call into a driver that hangs must not hang the training."""

FAILURES_IN_A_ROW: Final = 10
"""After so many exceptions one after another a collector is not asked again."""

_NS: Final = 1_000_000_000


class _Source:
    """A collector with its timetable."""

    __slots__ = ("collector", "due_ns", "failures", "interval_ns", "last_ns")

    def __init__(self, collector: Collector, now_ns: int) -> None:
        self.collector = collector
        self.interval_ns = max(int(collector.interval_s * _NS), 1)
        self.due_ns = now_ns
        self.last_ns = now_ns
        self.failures = 0

    def after(self, now_ns: int) -> None:
        """Set the next moment: on the old grid, without making up for what was missed."""
        late = max(now_ns - self.due_ns, 0)
        self.due_ns += (late // self.interval_ns + 1) * self.interval_ns


class Sampler:
    """The background thread of a recording; at most one runs in a process.

    It prints nothing and raises nothing into the training: what fails is counted and becomes rows of the table gaps, at
    first sight and, with the final counts, at `stop`. In a forked child it does nothing and forgets its thread and handles.

    Parameters
    ----------
    sink
        Where rows go.
    collectors
        Asked at their intervals, for the first time at once and for the last time at `stop`. Closed at `stop`.
    flushers
        Called every half second and at `stop`.
    gaps
        What was missing elsewhere in the recording, to be written with the rest; a new one if not given.
    """

    def __init__(
        self,
        sink: Sink,
        collectors: Sequence[Collector] = (),
        flushers: Sequence[Flusher] = (),
        *,
        gaps: Gaps | None = None,
    ) -> None:
        self.gaps = Gaps() if gaps is None else gaps
        self.cpu_ns = 0
        """CPU time of the thread so far."""
        self._sink = sink
        self._flushers = tuple(flushers)
        self._collectors = tuple(collectors)
        self._sources: list[_Source] = []
        self._waiting: dict[str, list[Row]] = {}
        self._flush_due_ns = 0
        self._delivering = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._process: int | None = None
        self._is_over = False

    @property
    def is_running(self) -> bool:
        """Whether the thread runs, in this process."""
        return self._thread is not None and self._process == os.getpid() and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; once it runs, nothing happens.

        Raises
        ------
        RuntimeError
            If another sampler runs in this process, or this one was stopped.
        """
        with _one:
            if _one.sampler is self:
                return
            if self._process is not None:
                message = "this sampler was stopped: make a new one"
                raise RuntimeError(message)
            if _one.sampler is not None:
                message = "a sampler already runs in this process: stop it before another is started"
                raise RuntimeError(message)
            _one.sampler = self
            _one.watch_forks()
        self._process = os.getpid()
        self.begin(time.perf_counter_ns())
        self._thread = threading.Thread(target=self._run, name="perfnb-sampler", daemon=True)
        atexit.register(self.stop)  # a daemon thread would be cut off with half a second of rows
        self._thread.start()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Ask once more, deliver everything, end the thread; it may be called again, and from anywhere.

        Parameters
        ----------
        timeout_s
            How long to wait for the thread at most.
        """
        thread = self._thread
        if thread is None or self._process != os.getpid() or self._is_over:
            return
        self._stopping.set()
        try:
            if thread is not threading.current_thread():
                thread.join(timeout_s)
                if thread.is_alive():
                    self._deliver_without_thread()
        finally:  # also where the wait was interrupted: the thread ends on its own
            with _one:
                if _one.sampler is self:
                    _one.sampler = None
            atexit.unregister(self.stop)

    def begin(self, now_ns: int) -> None:
        """Set the timetable; `start` does it."""
        self._sources = [_Source(collector, now_ns) for collector in self._collectors]
        self._flush_due_ns = now_ns + int(FLUSH_S * _NS)

    def turn(self, now_ns: int) -> int:
        """Do what is due at this moment; the thread does it again and again.

        Returns
        -------
        int
            The moment at which something is due next.
        """
        for source in [source for source in self._sources if source.due_ns <= now_ns]:
            began_ns = time.perf_counter_ns()
            self._ask(source, now_ns)
            source.after(now_ns + time.perf_counter_ns() - began_ns)  # one that takes longer than its interval gets a rest
        if self._flush_due_ns <= now_ns:
            self._deliver(now_ns)
            self._flush_due_ns = now_ns + int(FLUSH_S * _NS)
        return min([self._flush_due_ns, *(source.due_ns for source in self._sources)])

    def finish(self, now_ns: int) -> None:
        """Ask for the last time, deliver everything with the final counts of what was missing, close the collectors."""
        for source in list(self._sources):
            if 2 * (now_ns - source.last_ns) >= source.interval_ns:  # a rate over less than half of it says little
                self._ask(source, now_ns)
        for collector in self._collectors:
            try:
                collector.close()
            except Exception as error:  # noqa: BLE001 - a collector's failure is a gap, never the training's
                self.gaps.note(collector.table, None, None, f"could not be closed: {_words(error)}", now_ns)
        self._deliver(now_ns, is_last=True)

    def _run(self) -> None:
        began_ns = time.thread_time_ns()
        while not self._stopping.is_set() and self._process == os.getpid():
            due_ns = self.turn(time.perf_counter_ns())
            self.cpu_ns = time.thread_time_ns() - began_ns
            self._stopping.wait(max(due_ns - time.perf_counter_ns(), 0) / _NS)
        self.finish(time.perf_counter_ns())
        self.cpu_ns = time.thread_time_ns() - began_ns

    def _ask(self, source: _Source, now_ns: int) -> None:
        collector = source.collector
        source.last_ns = now_ns
        try:
            for table, rows in collector.collect(now_ns).items():
                self._waiting.setdefault(table, []).extend(rows)
        except Exception as error:  # noqa: BLE001 - a collector's failure is a gap, never the training's
            self.gaps.note(collector.table, None, None, _words(error), now_ns)
            source.failures += 1
            if source.failures >= FAILURES_IN_A_ROW:
                self._sources.remove(source)
                reason = f"failed {FAILURES_IN_A_ROW} times in a row and was not asked again"
                self.gaps.note(collector.table, None, None, reason, now_ns)
        else:
            source.failures = 0

    def _deliver(self, now_ns: int, *, is_last: bool = False) -> None:
        with self._delivering:
            if self._is_over:
                return
            for flusher in self._flushers:
                try:
                    for table, rows in (flusher() or {}).items():
                        self._waiting.setdefault(table, []).extend(rows)
                except Exception as error:  # noqa: BLE001 - as in _ask
                    self.gaps.note(None, None, None, f"rows of the recorder could not be taken: {_words(error)}", now_ns)
            waiting, self._waiting = self._waiting, {}
            for table, rows in waiting.items():
                self._append(table, rows, now_ns)
            books = dict.fromkeys([*(collector.gaps for collector in self._collectors), self.gaps])  # ours last: it grows here
            for gaps in books:
                self._append("gaps", gaps.changed() if is_last else gaps.fresh(), now_ns)
            self._is_over = is_last

    def _append(self, table: str, rows: list[Row], now_ns: int) -> None:
        if not rows:
            return
        try:
            self._sink.append(table, rows)
        except Exception as error:  # noqa: BLE001 - a full disk must not end a training
            self.gaps.note(table, None, None, f"rows could not be written: {_words(error)}", now_ns, len(rows))

    def _deliver_without_thread(self) -> None:
        """The thread hangs in a collector: what it has gathered and what the recorder has are delivered all the same."""
        now_ns = time.perf_counter_ns()
        self.gaps.note(None, None, None, "the thread of the samplers did not end in time", now_ns)
        if self._delivering.acquire(timeout=1):  # it hangs in the sink otherwise
            self._delivering.release()
            self._deliver(now_ns, is_last=True)

    def _abandon(self) -> None:
        """Forget everything, in a forked child."""
        self._thread, self._sources, self._waiting, self._flushers = None, [], {}, ()
        self._delivering, self._stopping = threading.Lock(), threading.Event()
        for collector in self._collectors:
            with contextlib.suppress(Exception):
                collector.abandon()
        self._collectors = ()


class _One:
    """Which sampler runs in this process."""

    def __init__(self) -> None:
        self.sampler: Sampler | None = None
        self._lock = threading.RLock()
        self._watches_forks = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def watch_forks(self) -> None:
        """Have a forked child forget the sampler; said once, since Python cannot take it back."""
        if not self._watches_forks and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
            self._watches_forks = True

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # another thread of the parent may have held it
        sampler, self.sampler = self.sampler, None
        if sampler is not None:
            sampler._abandon()  # noqa: SLF001 - of the class above


_one: Final = _One()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
