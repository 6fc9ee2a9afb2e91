"""Pauses of the training that Python and torch themselves tell of: the garbage collector and the compiler."""

from __future__ import annotations

import contextlib
from typing import Any

from perfnb.record.compile_pauses import CompilePauses
from perfnb.record.gc_pauses import CollectorPauses


class Pauses:
    """Rows of the table `host_ops` for both; made on the training thread."""

    def __init__(self) -> None:
        self._collector, self._compiler = CollectorPauses(), CompilePauses()

    def listen(self) -> None:
        """Begin."""
        self._collector.listen()
        with contextlib.suppress(LookupError):  # said at the first edge
            self._compiler.follow()

    def follow_compiler(self, _edge: int) -> None:
        """A step ended: listen to the compiler if it was imported meanwhile."""
        self._compiler.follow()

    def rows(self) -> list[tuple[Any, ...]]:
        """Rows since the last call."""
        return [*self._collector.rows(), *self._compiler.rows()]

    def close(self) -> None:
        """Listen no more; calling it again does nothing."""
        self._collector.close()
        self._compiler.close()
