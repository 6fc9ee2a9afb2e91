"""What a training loop may tell its recorder: where its steps and phases are, and values that only it knows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

from perfnb.errors import RecordingError
from perfnb.record.hooks import Watch
from perfnb.record.json_rows import json_value
from perfnb.record.late_values import as_given
from perfnb.record.loader_hooks import samples_of
from perfnb.record.marks import Code, Marks

Item = TypeVar("Item")

_LARGEST_STEP: Final = 2**53
_NAME: Final = re.compile(r"[A-Za-z_][\w .-]{0,63}")


class LoopMarks:
    """The part of a `Recorder` that a loop talks to; while nothing is recorded all of it does nothing."""

    _marks: Marks | None
    _watch: Watch | None
    _is_looping = False

    @property
    def is_recording(self) -> bool:
        """Whether it is at work."""
        raise NotImplementedError

    def steps(self, iterable: Iterable[Item]) -> Iterator[Item]:
        """The items of an iterable, usually a DataLoader, each with the work on it as one step.

        Parameters
        ----------
        iterable
            What the loop runs over; waiting for its next item is the phase `data`.

        Yields
        ------
        item
            As the iterable gives it.
        """
        marks, watch = self._marks, self._watch
        if not self.is_recording or marks is None or watch is None:
            yield from iterable
            return
        if watch.is_elsewhere() or self._is_looping:  # within a loop over steps these are no steps of their own
            watch.is_marked_elsewhere |= watch.is_elsewhere()
            yield from iterable
            return
        before, watch.by_hand = watch.by_hand, True
        self._is_looping = True
        try:
            marks.mark(Code.ENTER, "data")
            iterator = iter(iterable)
            while True:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    marks.mark(Code.LEAVE, "data")
                if not hasattr(iterator, "_dataset_kind"):  # an iterator of torch's loader says its batches itself
                    marks.note(Code.BATCH, samples_of(item))
                yield item
                watch.edge()
                marks.mark(Code.ENTER, "data")
        finally:
            self._is_looping, watch.by_hand = False, before
            if self.is_recording:
                marks.mark(Code.END, None)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs inside is this phase of the step.

        Parameters
        ----------
        name
            data, transfer, forward, backward, communication, optimizer, or a name of your own.

        Raises
        ------
        RecordingError
            If the name is none: letters, digits, blanks and `_.-`, 64 at most.
        """
        if not _NAME.fullmatch(name):
            message = f"{name[:80]!r} is no name of a phase: use letters, digits, blanks and _.-, 64 at most"
            raise RecordingError(message)
        marks, watch = self._marks, self._watch
        if not self.is_recording or marks is None or watch is None or watch.is_elsewhere():
            if watch is not None and self.is_recording:
                watch.is_marked_elsewhere = True
            yield
            return
        marks.mark(Code.ENTER, name)
        try:
            yield
        finally:
            marks.mark(Code.LEAVE, name)

    def step(self) -> None:
        """A step ends here; from now on only these calls end steps, not the optimizer's."""
        watch = self._watch
        if not self.is_recording or watch is None:
            return
        if watch.is_elsewhere():
            watch.is_marked_elsewhere = True
            return
        watch.by_hand = True
        watch.edge()

    def log(self, step: int | None = None, **values: Any) -> None:
        """Keep values of the training: loss, validation_loss, learning_rate, gradient_norm, tokens, or any name of your own.

        Tensors of a device are not waited for: they are read once they are there.

        Parameters
        ----------
        step
            The step that they belong to; left out, the one under way, or between two the one that just ended.
        **values
            Name to a number, or to a tensor with one element.

        Raises
        ------
        RecordingError
            If a value is no number, or the step is none.
        """
        if not self.is_recording or self._marks is None:
            return
        if step is not None and not (0 <= _whole(step) < _LARGEST_STEP):
            message = f"step={step!r} is no number of a step: a whole number from 0 on"
            raise RecordingError(message)
        given = {name: as_given(value) for name, value in values.items()}
        wrong = [name for name, value in given.items() if value is None]
        if wrong:
            message = f"{', '.join(wrong)}: no single number; log numbers, or tensors with one element"
            raise RecordingError(message)
        for name, value in given.items():
            self._marks.note(Code.VALUE, (name, value, True, step))

    def note_config(self, **knobs: Any) -> None:
        """Keep settings of the training that only the loop knows; those given to `record` come first.

        Parameters
        ----------
        **knobs
            Canonical name of a knob to its value.
        """
        if self._watch is not None:
            self._watch.seen.update({name: json_value(value) for name, value in knobs.items()})


def _whole(step: Any) -> int:
    """The number of a step, or one that is none."""
    return step if isinstance(step, int) and not isinstance(step, bool) else -1
