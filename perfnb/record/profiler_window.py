"""A short window under torch.profiler, once the training has warmed up, bounded in steps and in bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from perfnb.record.marks import Code, Marks
from perfnb.record.patches import Patch
from perfnb.record.sink import Sink

WARM_UP_STEPS: Final = 10
"""Steps before the window (shared/design, notebook 7)."""

MOST_BYTES: Final = 256 << 20
"""Text of a window's trace at most; fewer steps are taken where that many would not fit."""

BYTES_PER_EVENT: Final = 450
"""Text of a trace with shapes over the events that its profiler counts: torch 2.13 wrote 409 to 430 for a small perceptron,
convolution net and transformer layer; tests/record/test_profiler_window.py holds that it is not too low."""

LONGEST_PAUSE_STEPS: Final = 100
"""Steps between the first profiled one and the window at most."""

OTHER_PROFILER: Final = "a profiler of the training's own is at work: no window was recorded"

LONGEST_NS: Final = 120_000_000_000
"""A window that takes longer ends early."""


class ProfilerWindow:
    """Profiles some steps and writes their trace; all but `close` is driven by the edges of steps, on the training thread.

    The first profiled step is thrown away: it starts the profiler up, and tells how many events a step has. Then a step or more
    goes by unprofiled, see `OpenRanges`, and the window begins. Profiled steps are marked, for the profiler's cost is in their
    time. The trace is written by a thread of its own.
    """

    def __init__(
        self, steps: int, folder: Path, sink: Sink, marks: Marks, note: Callable[[str], None], *, most_bytes: int = MOST_BYTES
    ) -> None:
        """`steps` under the profiler at most, to be written into `folder`."""
        self._wanted, self._folder, self._most_bytes = steps, folder, most_bytes
        self._sink, self._marks, self._note = sink, marks, note
        self._edges = 0
        self._profiler: Any = None
        self._state = "waiting"
        self._left = 0
        self._first = self._start_ns = 0
        self._writer: threading.Thread | None = None
        self._ranges: OpenRanges | None = None

    def at_edge(self) -> None:
        """A step ended. What fails here ends the window, never the training."""
        self._edges += 1
        if self._state == "over":
            return
        try:
            self._advance()
        except Exception as error:  # noqa: BLE001 - the training must go on, whatever a profiler does
            self._end(f"the profiler failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """The recording ends: what was profiled so far is written, and written to its end."""
        if self._state in ("trying", "recording"):
            taken = self._edges - self._first
            try:
                if self._state == "recording" and taken > 0:
                    self._finish(f"the recording ended after {taken} of {self._wanted} profiled steps")
                else:
                    self._profiler.stop()
                    self._end("the recording ended before the profiler's window")
            except Exception as error:  # noqa: BLE001 - see `at_edge`
                self._end(f"the profiler failed: {type(error).__name__}: {error}")
        elif self._state == "waiting":
            self._end(f"the recording ended before the profiler's window: it begins after {WARM_UP_STEPS} steps")
        elif self._state == "pausing":
            self._end("the recording ended before the profiler's window")
        if self._writer is not None:
            self._writer.join()

    def _advance(self) -> None:
        if self._state == "waiting":
            if self._edges >= WARM_UP_STEPS:
                self._try()
        elif self._state == "trying":
            self._size()
        elif self._state == "pausing":
            self._begin()
        elif self._state == "recording":
            self._left -= 1
            late = time.perf_counter_ns() - self._start_ns > LONGEST_NS
            if self._left <= 0 or late:
                self._finish(f"the profiler's window was ended after {LONGEST_NS // 10**9} s" if late and self._left else "")
            else:
                self._profiler.step()

    def _try(self) -> None:
        """Profile one step, to start the profiler up and to count its events."""
        import torch  # noqa: PLC0415 - torch only where it is used

        if torch.autograd._profiler_enabled():  # noqa: SLF001 - torch has no public name for it
            self._end(OTHER_PROFILER)
            return
        self._ranges = OpenRanges(torch.autograd.profiler.record_function)
        self._profiler = _profiler(torch)
        self._profiler.start()
        self._marks.note(Code.PROFILER, 1)
        self._state, self._first = "trying", self._edges

    def _size(self) -> None:
        self._profiler.stop()
        self._marks.note(Code.PROFILER, 0)
        if self._ranges is not None:
            self._ranges.is_entering = False
        events = len(self._profiler.profiler.kineto_results.events())
        fitting = max(int(self._most_bytes / (max(events, 1) * BYTES_PER_EVENT)), 1)
        self._left = min(self._wanted, fitting)
        if self._left < self._wanted:
            self._note(
                f"{self._left} of {self._wanted} steps are profiled: one has {events:,} events, and a trace may hold "
                f"{self._most_bytes >> 20} MiB"
            )
        self._profiler, self._state, self._first = None, "pausing", self._edges

    def _begin(self) -> None:
        """Start the window, once no range is open any more that began in the step before the pause."""
        import torch  # noqa: PLC0415 - as above

        if self._ranges is not None and self._ranges.count:
            if self._edges - self._first > LONGEST_PAUSE_STEPS:
                self._end("no window was recorded: a record_function of the training's own stayed open over many steps")
            return
        if torch.autograd._profiler_enabled():  # noqa: SLF001 - as above
            self._end(OTHER_PROFILER)
            return
        self._profiler = _profiler(torch)
        self._profiler.start()
        self._marks.note(Code.PROFILER, 1)
        self._state, self._first, self._start_ns = "recording", self._edges, time.perf_counter_ns()

    def _finish(self, note: str) -> None:
        end_ns = time.perf_counter_ns()
        self._profiler.stop()
        self._marks.note(Code.PROFILER, 0)
        row = (self._first, self._edges - 1, self._start_ns, end_ns, "trace.json.gz")
        self._writer = threading.Thread(target=self._write, args=(self._profiler, row), name="perfnb trace", daemon=True)
        self._writer.start()
        self._profiler, self._state = None, "over"
        self._forget_ranges()
        if note:
            self._note(note)

    def _write(self, profiler: Any, row: tuple[Any, ...]) -> None:
        target = self._folder / row[-1]
        unfinished = target.with_name(f"unfinished-{target.name}")
        try:
            profiler.export_chrome_trace(str(unfinished))
            unfinished.replace(target)
        except Exception as error:  # noqa: BLE001 - a full disk must not end the training
            self._note(f"the profiler's trace could not be written: {type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        else:
            self._sink.append("windows", [row])

    def _end(self, reason: str) -> None:
        if self._state in ("trying", "recording"):
            self._marks.note(Code.PROFILER, 0)
        self._profiler, self._state = None, "over"
        self._forget_ranges()
        self._note(reason)

    def _forget_ranges(self) -> None:
        if self._ranges is not None:
            self._ranges.close()
        self._ranges = None


class OpenRanges:
    """Counts the ranges of `record_function` that were entered while it counts, and not left.

    torch 2.13 keeps in a range where the profiler notes its end. Left after that profiler stopped and another started, it
    writes into memory that is no longer its own, and the process dies some time later. At the edge of a step the optimizer's
    own range is open, and those of the training may be.

    Attributes
    ----------
    count
        Ranges that are open.
    is_entering
        Whether ranges that are entered count, or only those that were.
    """

    def __init__(self, record_function: Any) -> None:
        """Count from here on; `record_function` is torch's class of that name."""
        self.is_entering = True
        self._open: set[int] = set()
        self._patches = [
            Patch(record_function, "__enter__", self._entering),
            Patch(record_function, "__exit__", self._leaving),
        ]

    @property
    def count(self) -> int:
        """Ranges that are open."""
        return len(self._open)

    def close(self) -> None:
        """Count no more."""
        for patch in self._patches:
            patch.remove()

    def _entering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def enter(entered: Any) -> Any:
            if self.is_entering:
                self._open.add(id(entered))
            return original(entered)

        return enter

    def _leaving(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def leave(left: Any, *error: Any) -> Any:
            self._open.discard(id(left))
            return original(left, *error)

        return leave


def _profiler(torch: Any) -> Any:
    """A profiler whose annotation of steps begins when it starts."""
    kinds = torch.profiler.ProfilerActivity
    activities = [kinds.CPU, *([kinds.CUDA] if torch.cuda.is_available() and torch.cuda.is_initialized() else [])]
    return torch.profiler.profile(
        activities=activities,
        schedule=lambda _: torch.profiler.ProfilerAction.RECORD,  # without a schedule there are no annotations of steps
        record_shapes=True,
        acc_events=True,
    )
