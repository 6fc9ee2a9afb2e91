"""The config behind a panel: applying changes to it and taking them back, one click at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfnb.document import Block, Line, Verdict
from perfnb.errors import PerfnbError
from perfnb.prediction import Change

Config = Mapping[str, Any]
Edit = Callable[[Sequence[Change], Config], Config]
"""Makes a new config from changes and a config; raises `PerfnbError` where it cannot."""


class History:
    """A config and the changes that were applied to it.

    Parameters
    ----------
    config
        The config to start from; it is never modified.
    on_apply, on_undo
        Make the new config, and put it where it lives.
    """

    def __init__(self, config: Config, on_apply: Edit, on_undo: Edit) -> None:
        self.started_from = config
        self.config = config
        self.applied: tuple[tuple[Change, ...], ...] = ()
        self._on_apply, self._on_undo = on_apply, on_undo
        self._lock = threading.Lock()

    def apply(self, changes: Sequence[Change]) -> str:
        """Apply changes as one step; what went wrong in words, or nothing."""
        return self._edited(self._on_apply, tuple(changes), (*self.applied, tuple(changes)))

    def undo(self) -> str:
        """Take the latest step back; what went wrong in words, or nothing."""
        if not self.applied:
            return "nothing to take back"
        return self._edited(self._on_undo, self.applied[-1], self.applied[:-1])

    def _edited(self, edit: Edit, changes: tuple[Change, ...], applied: tuple[tuple[Change, ...], ...]) -> str:
        if not self._lock.acquire(blocking=False):
            return "busy: the click before is still at work"
        try:
            self.config = edit(changes, self.config)
        except PerfnbError as error:
            return str(error)
        else:
            self.applied = applied
            return ""
        finally:
            self._lock.release()


def said(error: str, done: str, home: str) -> tuple[Block, ...]:
    """What a click did and what to do with the new config, or why it did nothing."""
    return (Verdict("x", error),) if error else (Line("", f"{done}. {home}" if home else done),)
