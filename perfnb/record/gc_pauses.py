"""Pauses of Python's garbage collector on the training thread."""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any


class CollectorPauses:
    """Rows of the table `host_ops` for each time the collector ran on the thread that made this."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._rows: deque[tuple[Any, ...]] = deque()
        self._start_ns = 0

    def listen(self) -> None:
        """Begin."""
        gc.callbacks.append(self._ran)

    def rows(self) -> list[tuple[Any, ...]]:
        """Rows since the last call."""
        return [self._rows.popleft() for _ in range(len(self._rows))]

    def close(self) -> None:
        """Listen no more; calling it again does nothing."""
        if self._ran in gc.callbacks:
            gc.callbacks.remove(self._ran)

    def _ran(self, moment: str, told: Mapping[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if moment == "start":
            self._start_ns = time.perf_counter_ns()
        elif self._start_ns:
            name = f"generation{told['generation']}"
            self._rows.append((str(self._thread), "gc", name, self._start_ns, time.perf_counter_ns()))
