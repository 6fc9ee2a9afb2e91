"""A thread that calls a function again and again, rarer where a call costs much, until it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

LARGEST_SHARE: Final = 0.02
"""Share of one core that the calls may take: where they cost more they come less often."""

STOP_S: Final = 5.0


class Ticker:
    """Calls a function on a daemon thread of its own.

    Parameters
    ----------
    tick
        Called at once, and then after each pause; the thread ends where it gives False.
    interval_s
        Between the starts of two calls, or more where these are dear.
    name
        Of the thread.

    Attributes
    ----------
    pause_s
        Between two calls as it is now.
    """

    def __init__(self, tick: Callable[[], bool], interval_s: float, name: str) -> None:
        self._tick, self._interval_s, self._name = tick, interval_s, name
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.pause_s = interval_s

    @property
    def is_running(self) -> bool:
        """Whether the thread lives and goes on."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping.is_set()

    def start(self) -> None:
        """Start the thread; where it runs nothing happens."""
        with self._lock:
            if self.is_running:
                return
            self._stopping = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stopping,), name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; it may be called again, and from the thread itself."""
        with self._lock:
            self._stopping.set()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            began_ns = time.thread_time_ns()
            if not self._tick():
                stopping.set()
                return
            cost_s = (time.thread_time_ns() - began_ns) / 1e9
            self.pause_s = max(self._interval_s, cost_s / LARGEST_SHARE)
            stopping.wait(self.pause_s)
