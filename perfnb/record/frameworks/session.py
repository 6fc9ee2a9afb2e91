"""The recording that a trainer's callback keeps: its own, or the one that is under way round the trainer."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

from perfnb.record.recorder import Recorder, active

NO_END: Final = "the training ended without a word to its callbacks, as it does when it raises"


class Session:
    """Begins and ends with the training.

    Attributes
    ----------
    recorder
        Of the last training; None before the first.
    """

    def __init__(self, folder: str | PathLike[str] | None, options: Mapping[str, Any], *, hands_batches: bool = False) -> None:
        """What `perfnb.record` takes, and whether the trainer says which batch it trains on."""
        self._folder, self._options = None if folder is None else Path(folder).expanduser(), dict(options)
        self._hands_batches = hands_batches
        self._count = 0
        self._is_own = False
        self.recorder: Recorder | None = None

    def begin(self) -> None:
        """The training begins. A recording that is under way is used, for two at once would measure each other."""
        self.end("failed", NO_END)
        under_way = active()
        self._is_own = under_way is None or under_way.yields
        self.recorder = self._started() if self._is_own else under_way
        if self._hands_batches:
            self._say_batches(is_ahead=True)

    def _started(self) -> Recorder:
        self._count += 1
        folder = self._folder
        if folder is not None and self._count > 1:
            folder = folder.with_name(f"{folder.name}-{self._count}")
        # it yields: the trainer does not say when it raised, and a later recording must not be refused for that
        recorder = Recorder(folder, **self._options, yields=True)
        recorder.start()
        atexit.register(self.end, "failed", NO_END)
        return recorder

    def batch(self, batch: Any) -> None:
        """The trainer trains on this batch."""
        watch = self.recorder.watch if self.recorder is not None else None
        if watch is not None:
            watch.loaders.note_batch(batch)

    def _say_batches(self, *, is_ahead: bool) -> None:
        watch = self.recorder.watch if self.recorder is not None else None
        if watch is not None:
            watch.loaders.is_loading_ahead = is_ahead

    def end(self, state: str = "finished", reason: str = "") -> None:
        """The training ended; calling it again does nothing."""
        if self._hands_batches:
            self._say_batches(is_ahead=False)
        if self.recorder is not None and self._is_own:
            atexit.unregister(self.end)
            self.recorder.finish(state, reason)
        self._is_own = False

    def note(self, settings: Mapping[str, Any]) -> None:
        """Settings of the training."""
        if self.recorder is not None:
            self.recorder.note_config(**settings)

    def log(self, values: Mapping[str, Any]) -> None:
        """Values of the step that ended last; what is no number is left out, for trainers log words and lists too."""
        numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
        if self.recorder is not None and numbers:
            self.recorder.log(max(self.recorder.steps_ended - 1, 0), **numbers)


def _is_number(value: object) -> bool:
    """Whether a value is a plain number: a tensor of a device would be waited for."""
    return isinstance(value, (int, float)) or (
        getattr(value, "ndim", None) == 0 and getattr(getattr(value, "device", None), "type", "cpu") == "cpu"
    )
