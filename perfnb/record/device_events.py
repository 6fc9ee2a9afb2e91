"""Events of a CUDA device at the boundaries of phases, read once the device has passed them."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

MOST_WAITING: Final = 20_000
"""Rows whose events may wait to be passed; older ones lose their device time."""

_MICROSECONDS: Final = 1e3  # CUDA states milliseconds


class DeviceEvents:
    """Takes events on the current stream, and fills the device time of `phases` rows in when all of them were passed.

    Nothing is synchronized: a row is held back until its last event was passed. Not validated on a GPU.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, ...]] = deque(maxlen=MOST_WAITING)

    def take(self) -> Any:
        """An event at this point of the current stream; None while a CUDA graph is captured, which would keep it."""
        import torch  # noqa: PLC0415 - torch only where it is used

        if torch.cuda.is_current_stream_capturing():
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def rows(self, phases: list[tuple[Any, ...]], *, wait: bool = False) -> list[tuple[Any, ...]]:
        """Rows of `phases` whose device time is known, in their order; `wait` lets the device pass all events first."""
        self._waiting += phases
        known = []
        while self._waiting:
            *row, spans = self._waiting[0]
            if spans and not (wait or all(end.query() for _, end in spans)):
                break
            self._waiting.popleft()
            known.append((*row, _device_us(spans, wait=wait) if spans else None))
        return known


def _device_us(spans: list[tuple[Any, Any]], *, wait: bool) -> float | None:
    try:
        if wait:
            spans[-1][1].synchronize()
        return float(sum(start.elapsed_time(end) for start, end in spans)) * _MICROSECONDS
    except RuntimeError:  # events of two devices, or a device that failed
        return None
