"""How many processes a cell starts: nothing that runs in them is seen, so the card has to say so."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, Final

INTERVAL_S: Final = 0.2
"""Time between two looks; what lives shorter is no training."""

# Command lines of processes that libraries start for themselves
_SERVANTS: Final = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver", b"torch._inductor", b"compile_worker")


class ChildProcesses:
    """Counts the processes that the calling thread starts, from `start` to `stop`; Linux only, elsewhere it counts none.

    Workers of loaders and of pools are not counted: Python marks them as daemons, and the loaders' are accounted for.
    """

    def __init__(self) -> None:
        self._file = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        self._known: set[int] = set()
        self._seen: set[int] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        if not self._file.exists():
            return
        self._known = self._now()
        self._thread = threading.Thread(target=self._look, name="perfnb-children", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End; the number of processes that were seen at two looks, or are alive now."""
        if self._thread is None:
            return 0
        self._stopping.set()
        self._thread.join()
        self._thread = None
        return len(self._seen)

    def _look(self) -> None:
        before: set[int] = set()
        while not self._stopping.wait(INTERVAL_S):
            now = self._new()
            self._seen |= now & before
            before = now
        self._seen |= self._new()

    def _new(self) -> set[int]:
        """Processes that are the cell's own, and neither a worker nor a library's servant."""
        new = self._now() - self._known - self._seen
        if not new:
            return new
        workers = {child.pid for child in _multiprocessing_children() if child.daemon}
        return {process for process in new - workers if not _is_servant(process)}

    def _now(self) -> set[int]:
        try:
            return {int(process) for process in self._file.read_text(encoding="ascii").split()}
        except (OSError, ValueError):  # the thread has ended
            return set()


def _multiprocessing_children() -> list[Any]:
    """Those of Python's multiprocessing; asking it by `active_children()` would also collect the ones that have ended."""
    return list(getattr(sys.modules.get("multiprocessing.process"), "_children", ()))


def _is_servant(process: int) -> bool:
    """Whether a process serves a library, or has ended and only waits to be collected."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True
    return not command or any(servant in command for servant in _SERVANTS)
