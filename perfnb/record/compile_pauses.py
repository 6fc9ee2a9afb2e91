"""Times in which torch.compile compiles, as torch's own callbacks tell."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any, Final

_CALLBACKS: Final = "torch._dynamo.callback"
_COMPILER: Final = "torch._dynamo.convert_frame"  # imported with torch._dynamo, of any version


class CompilePauses:
    """Rows of the table `host_ops` for each time that torch's compiler worked, on whichever thread asked for it.

    torch._dynamo is never imported here: it is listened to from the first edge of a step after the training imported it.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[Any, ...]] = deque()
        self._handler: Any = None
        self._start_ns = 0

    def follow(self) -> None:
        """Listen, if torch._dynamo is there by now; torch._dynamo.reset() forgets those who listen, so this is called again.

        Raises
        ------
        LookupError
            If this torch does not tell when it compiles.
        """
        if self._handler is None:
            self._handler = getattr(sys.modules.get(_CALLBACKS), "callback_handler", None)
            if self._handler is None:
                if _COMPILER in sys.modules and _CALLBACKS not in sys.modules:
                    message = "this version of torch does not tell when it compiles"
                    raise LookupError(message)
                return
        if self._begin not in self._handler.start_callbacks:
            self._handler.register_start_callback(self._begin)
            self._handler.register_end_callback(self._end)

    def rows(self) -> list[tuple[Any, ...]]:
        """Rows since the last call."""
        return [self._rows.popleft() for _ in range(len(self._rows))]

    def close(self) -> None:
        """Listen no more; calling it again does nothing."""
        if self._handler is not None and self._begin in self._handler.start_callbacks:
            self._handler.remove_start_callback(self._begin)
        if self._handler is not None and self._end in self._handler.end_callbacks:
            self._handler.remove_end_callback(self._end)

    def _begin(self, *_: Any) -> None:
        self._start_ns = time.perf_counter_ns()

    def _end(self, *told: Any) -> None:
        if self._start_ns:
            trigger = getattr(getattr(told[0], "callback_trigger", None), "name", "") if told else ""
            name = str(trigger).lower() or "compile"
            self._rows.append((str(threading.get_ident()), "compile", name, self._start_ns, time.perf_counter_ns()))
            self._start_ns = 0
