"""Marks -> rows: exclusive times of the phases of each step, which sum to it, and the values that belong to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from perfnb.record.clocks import runqueue_ns
from perfnb.record.marks import Code, Mark
from perfnb.record.phase_names import (
    AFTER_FORWARD,
    BY_HOOKS,
    INFERENCE,
    OF_INFERENCE,
    OTHER,
    SCALED_STEP,
    UNSPLIT,
    Phase,
)
from perfnb.record.phase_time import Spent, merged
from perfnb.record.sources import Sources

_OF_EVALUATION: Final = ("validation", "val_", "val/", "eval")
"""How names of values begin that an evaluation gives."""

SEVERAL_UPDATES: Final = "several optimizers stepped in one step: what backward() was called on is no one loss"
CLOSURE: Final = "the optimizer calls backward() itself, several times a step: what it was called on is no one loss"


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
    unclear_loss
        Why backward passes tell neither a loss nor micro-batches; empty where they do.
    """

    def __init__(self) -> None:
        self.step = 0
        self.forwards = 0
        self.has_runqueue = False
        self.unclear_loss = ""
        self._start_ns: int | None = None
        self._last: tuple[int, int, int | None, Any] | None = None
        self._schedstat: bytes | None = None
        self._runqueue_ns: int | None = None
        self._stack: list[Phase] = []
        self._is_after_forward = False
        self._spent: dict[Phase, Spent] = {}
        self._sources = Sources()
        self._epoch = -1
        self._micro_batches = self._updates = self._closures = 0
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
            if what not in OF_INFERENCE:  # a teacher may run between the student and its loss
                self._settle("forward" if what == "backward" else OTHER)
            self._stack.append(what)
            self.forwards += what == "forward"
            self._enter(what)
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

    def _enter(self, what: Any) -> None:
        if what == "forward":
            self._sources.forward()
        elif what == INFERENCE:
            if not any(isinstance(each, tuple) for each in self._stack):  # of a dataset's own model, while it makes a batch
                self._sources.use(trains=False)
        elif what == "backward":
            self._sources.use(trains=True)
            self._closures += "optimizer" in self._stack
            if self._closures > 1:  # Lightning's optimizers call it too, but once
                self.unclear_loss = CLOSURE
        elif what == "optimizer" and self._stack.count("optimizer") == 1:
            self._updates += 1
            if self._updates > 1:
                self.unclear_loss = SEVERAL_UPDATES
        elif isinstance(what, tuple):
            self._sources.fetch(what[1])

    def _count(self, code: int, what: Any, out: Folded) -> None:
        if code == Code.BATCH:
            self._sources.load(*(what if isinstance(what, tuple) else (None, what)))
        elif code == Code.EPOCH:
            self._sources.begin_pass(what)
        elif code == Code.EXCHANGED:
            self._move(what)
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
        if schedstat is not self._schedstat:  # the same object where it was not read anew
            self._schedstat, self._runqueue_ns = schedstat, runqueue_ns(schedstat)
        runqueue = self._runqueue_ns
        before, self._last = self._last, (wall, cpu, runqueue, event)
        if self._start_ns is None or before is None:
            self._start_ns = wall
            return
        phase = self._innermost()
        spent = self._spent.get(phase)
        if spent is None:
            spent = self._spent[phase] = Spent()
        spent.wall_ns += wall - before[0]
        spent.cpu_ns += cpu - before[1]
        if runqueue is not None and before[2] is not None:
            self.has_runqueue = True
            spent.runqueue_ns += runqueue - before[2]
        if event is not None and before[3] is not None:
            spent.spans.append((before[3], event))

    def _innermost(self) -> Phase:
        """The phase under way; inference only where it is inside of no other: of a dataset that runs a model it is data."""
        if not self._stack:
            return AFTER_FORWARD if self._is_after_forward else OTHER
        return next((each for each in reversed(self._stack) if each not in OF_INFERENCE), self._stack[-1])

    def _move(self, exchange_ns: int) -> None:
        """Give the end of a backward pass, in which it only waited for other ranks, to communication.

        Waiting takes no CPU, so what the whole took on the CPU, and waiting for one, stays with backward as far as it fits.
        """
        backward = self._spent.get("backward")
        if backward is None:
            return
        moved = min(exchange_ns, backward.wall_ns)
        left = backward.wall_ns - moved
        cpu = max(backward.cpu_ns - left, 0)
        runqueue = max(backward.runqueue_ns - (left - (backward.cpu_ns - cpu)), 0)
        communication = self._spent.setdefault("communication", Spent())
        for name, value in {"wall_ns": moved, "cpu_ns": cpu, "runqueue_ns": runqueue}.items():
            setattr(backward, name, getattr(backward, name) - value)
            setattr(communication, name, getattr(communication, name) + value)

    def _leave(self, phase: Phase) -> None:
        """Close a phase and those that were left open inside it, as by an exception."""
        if phase not in self._stack:
            return
        while self._stack.pop() != phase:
            pass
        if phase == "backward":
            self._micro_batches += 1
        if phase not in OF_INFERENCE:
            self._is_after_forward = phase == "forward" and not self._stack

    def _settle(self, phase: Phase) -> None:
        """Give the time since a forward pass to a phase: to forward where backward() comes next, since it went on the loss."""
        self._is_after_forward = False
        since = self._spent.pop(AFTER_FORWARD, None)
        if since is not None:
            self._spent.setdefault(phase, Spent()).add(since)

    def _close(self, mark: Mark, out: Folded) -> None:
        self._settle(OTHER)
        end_ns = mark[2]
        samples, passes, evaluated = self._sources.close()
        self._epoch += passes
        micro_batches = None if self.unclear_loss else self._micro_batches
        out.add("steps", (self.step, self._start_ns, end_ns, self._was_profiled, max(self._epoch, 0), micro_batches))
        trained = "optimizer" in self._spent or SCALED_STEP in self._spent
        split = not trained or ("forward" in self._spent) == ("backward" in self._spent)
        for phase, spent in merged(self._spent, evaluated).items():
            if phase == OTHER and not spent.wall_ns:
                continue
            name = UNSPLIT if phase == OTHER and not split else phase
            runqueue = spent.runqueue_ns if self.has_runqueue else None
            cpu = max(spent.cpu_ns, 0)  # over a short gap it is assumed, see `perfnb.record.marks.QUIET_NS`
            out.add("phases", (self.step, name, spent.wall_ns, cpu, runqueue, spent.spans or None))
        told: dict[str, Any] = {"batch_size": samples, "micro_batches": micro_batches or None}
        if self._skipped:
            told["skipped"] = 1
        out.values += [Late(self.step, end_ns, name, value) for name, value in told.items() if value is not None]
        self.step += 1
        self._start_ns, self._spent = end_ns, {}
        self._micro_batches = self._updates = self._closures = 0
        self._skipped = False
        self._was_profiled = self._is_profiled
        # what a hook opened and an exception left open ends here; a scaler's step and the user's phases go on
        self._stack = [phase for phase in self._stack if phase not in BY_HOOKS]

    def _value(self, mark: Mark, out: Folded) -> None:
        name, value, given, step = mark[1]
        own = self._told_step(name) if given else self.step
        out.values.append(Late(own if step is None else step, mark[2], name, value))

    def _told_step(self, name: str = "") -> int:
        """The step that a value belongs to which comes after an edge and before any phase: the one that just ended.

        A value of an evaluation belongs there also after the evaluation itself, and its batches.
        """
        since: set[Phase] = set(self._spent)
        if name.startswith(_OF_EVALUATION):
            since = {each for each in since if isinstance(each, str) and each not in (OTHER, *OF_INFERENCE)}
        return self.step - 1 if self.step and not since and not self._stack else self.step
