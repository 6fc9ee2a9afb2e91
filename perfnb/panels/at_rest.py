"""An action that waits until a control has been at rest for a moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

REST_S: Final = 0.3
"""Seconds without a change after which a control counts as at rest."""


class AtRest:
    """Runs the latest of several actions once nothing more has come for `REST_S`; at once where no event loop runs."""

    def __init__(self) -> None:
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle, Callable[[], None]] | None = None

    def run(self, action: Callable[[], None]) -> None:
        """Run this action at rest, in place of the one that still waits."""
        self.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            action()
            return
        self._waiting = (loop, loop.call_later(REST_S, self.settle), action)

    def settle(self) -> None:
        """Run what waits now."""
        waiting = self._waiting
        self.cancel()
        if waiting is not None:
            waiting[2]()

    def cancel(self) -> None:
        """Drop what waits."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            loop, handle, _ = waiting
            # a callback may come on another thread than the one whose loop holds the timer, and after that loop has ended
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(handle.cancel)
