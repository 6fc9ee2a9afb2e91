"""Marks -> rows: exclusive times of the phases of each step, which sum to it, and the values that belong to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from perfnb.record.clocks import runqueue_ns
from perfnb.record.marks import Code, Mark

OTHER: Final = "other"
UNSPLIT: Final = "unsplit"
"""The rest of a step of which one of forward and backward was not seen: it holds that one."""

SCALED_STEP: Final = "scaled optimizer"
"""The optimizer phase that a gradient scaler opens round the optimizer's own; both are shown as optimizer."""

_BY_HOOKS: Final = ("data", "forward", "backward", "optimizer")


@dataclass(slots=True)
class _Spent:
    """Time of one phase in one step."""

    wall_ns: int = 0
    cpu_ns: int = 0
    runqueue_ns: int = 0
    spans: list[tuple[Any, Any]] = field(default_factory=list)  # events of the device at the edges of its stretches


@dataclass(frozen=True, slots=True)
class Late:
    """A value that is not known yet: a tensor that may live on a device."""

    step: int
    time_ns: int
    name: str
    value: Any


@dataclass(slots=True)
class Folded:
    """What some marks told.

    Attributes
    ----------
    rows
        Table to rows, see `perfnb.record.rows.COLUMNS`; `phases` rows hold pairs of device events in place of device_us.
    values
        Values that belong to steps, in the order they were given.
    """

    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    values: list[Late] = field(default_factory=list)

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        """Add a row of a table."""
        self.rows.setdefault(table, []).append(row)


class PhaseFold:
    """Follows the marks of one thread and gives the rows of every step that ended.

    Phases form a stack: time goes to the innermost, so that they sum to the step. What is in no phase is `other`. A step
    begins where the one before ended, the first at its first phase.

    Attributes
    ----------
    step
        Number of the step under way.
    forwards
        Forward passes seen so far, in steps that ended or not.
    """

    def __init__(self) -> None:
        self.step = 0
        self.forwards = 0
        self.has_runqueue = False
        self._start_ns: int | None = None
        self._last: tuple[int, int, int | None, Any] | None = None
        self._stack: list[str] = []
        self._spent: dict[str, _Spent] = {}
        self._epoch = -1
        self._micro_batches = 0
        self._samples: int | None = None
        self._skipped = False
        self._is_profiled = self._was_profiled = False

    def fold(self, marks: Iterable[Mark]) -> Folded:
        """Rows and values of some more marks.

        Parameters
        ----------
        marks
            In the order they were left.

        Returns
        -------
        Folded
            Rows of the steps that ended among them.
        """
        out = Folded()
        for mark in marks:
            self._take(mark, out)
        return out

    def _take(self, mark: Mark, out: Folded) -> None:
        code, what = mark[0], mark[1]
        if code <= Code.END:
            self._advance(mark)
        if code == Code.ENTER:
            self._stack.append(what)
            self.forwards += what == "forward"
        elif code == Code.LEAVE:
            self._leave(what)
        elif code == Code.EDGE:
            if what is not None:
                self._leave(what)
            self._close(mark, out)
        elif code == Code.END:
            if "optimizer" in self._spent:
                self._close(mark, out)
        elif code == Code.VALUE:
            self._value(mark, out)
        else:
            self._count(code, what, out)

    def _count(self, code: int, what: Any, out: Folded) -> None:
        if code == Code.BATCH:
            self._samples = what if self._samples is None or what is None else self._samples + what
        elif code == Code.EPOCH:
            self._epoch += 1
        elif code == Code.SKIPPED:
            self._skipped = True
        elif code == Code.PROFILER:
            self._is_profiled = bool(what)
            self._was_profiled |= self._is_profiled
        elif code == Code.ROW:
            table, row = what
            out.add(table, (self._told_step(), *row))

    def _advance(self, mark: Mark) -> None:
        """Give the time since the last mark to the innermost phase."""
        wall, cpu, schedstat = mark[2:5]
        event = mark[5] if len(mark) > 5 else None  # noqa: PLR2004 - see `Mark`
        runqueue = None if schedstat is None else runqueue_ns(schedstat)
        before, self._last = self._last, (wall, cpu, runqueue, event)
        if self._start_ns is None or before is None:
            self._start_ns = wall
            return
        phase = self._stack[-1] if self._stack else OTHER
        spent = self._spent.get(phase)
        if spent is None:
            spent = self._spent[phase] = _Spent()
        spent.wall_ns += wall - before[0]
        spent.cpu_ns += cpu - before[1]
        if runqueue is not None and before[2] is not None:
            self.has_runqueue = True
            spent.runqueue_ns += runqueue - before[2]
        if event is not None and before[3] is not None:
            spent.spans.append((before[3], event))

    def _leave(self, phase: str) -> None:
        """Close a phase and those that were left open inside it, as by an exception."""
        if phase not in self._stack:
            return
        while self._stack.pop() != phase:
            pass
        if phase == "backward":
            self._micro_batches += 1

    def _close(self, mark: Mark, out: Folded) -> None:
        end_ns = mark[2]
        out.add("steps", (self.step, self._start_ns, end_ns, self._was_profiled, max(self._epoch, 0), self._micro_batches))
        split = ("forward" in self._spent) == ("backward" in self._spent)
        for phase, spent in _merged(self._spent).items():
            if phase == OTHER and not spent.wall_ns:
                continue
            name = UNSPLIT if phase == OTHER and not split else phase
            runqueue = spent.runqueue_ns if self.has_runqueue else None
            out.add("phases", (self.step, name, spent.wall_ns, spent.cpu_ns, runqueue, spent.spans or None))
        told: dict[str, Any] = {"batch_size": self._samples, "micro_batches": self._micro_batches or None}
        if self._skipped:
            told["skipped"] = 1
        out.values += [Late(self.step, end_ns, name, value) for name, value in told.items() if value is not None]
        self.step += 1
        self._start_ns, self._spent = end_ns, {}
        self._micro_batches, self._samples, self._skipped = 0, None, False
        self._was_profiled = self._is_profiled
        # what a hook opened and an exception left open ends here; a scaler's step and the user's phases go on
        self._stack = [phase for phase in self._stack if phase not in _BY_HOOKS]

    def _value(self, mark: Mark, out: Folded) -> None:
        name, value, given, step = mark[1]
        own = self._told_step() if given else self.step
        out.values.append(Late(own if step is None else step, mark[2], name, value))

    def _told_step(self) -> int:
        """The step that a value belongs to which comes after an edge and before any phase: the one that just ended."""
        return self.step - 1 if self.step and not self._spent and not self._stack else self.step


def _merged(spent: dict[str, _Spent]) -> dict[str, _Spent]:
    """Phases as they are shown: a scaler's share of the optimizer's step belongs to it."""
    outer = spent.pop(SCALED_STEP, None)
    if outer is not None:
        inner = spent.setdefault("optimizer", _Spent())
        inner.wall_ns += outer.wall_ns
        inner.cpu_ns += outer.cpu_ns
        inner.runqueue_ns += outer.runqueue_ns
        inner.spans += outer.spans
    return spent
