"""What torch's caching allocator holds at the end of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

SHORTEST_PAUSE_NS: Final = 100_000_000
"""Between two looks: what asking costs on a GPU was not measured, so it is not asked at each step."""

_SIZES: Final = (
    ("requested_bytes", "current"),
    ("allocated_bytes", "current"),
    ("active_bytes", "current"),
    ("inactive_split_bytes", "current"),
    ("reserved_bytes", "current"),
    ("requested_bytes", "peak"),
    ("allocated_bytes", "peak"),
    ("reserved_bytes", "peak"),
)
_COUNTERS: Final = ("num_alloc_retries", "num_ooms", "num_device_alloc", "num_device_free")


class AllocatorCollector:
    """Rows of the table `allocator`, without their step, in the order of `perfnb.record.rows.COLUMNS`.

    Peaks are running maxima unless they are reset, which would spoil the user's own readings. Not validated on a GPU.

    Parameters
    ----------
    reset_peaks
        Whether each look begins new peaks, so that they are those of one step; then there is a look at every step.
    """

    def __init__(self, *, reset_peaks: bool = False) -> None:
        self._last_ns, self._resets = 0, reset_peaks
        self._was_reset: set[int] = set()

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """One row per device that this process uses; none within 0.1 s of the last ones, except where peaks are reset."""
        import torch  # noqa: PLC0415 - torch only where it is used

        now = time.perf_counter_ns()
        if now - self._last_ns < SHORTEST_PAUSE_NS and not self._resets:
            return
        self._last_ns = now
        for device in range(torch.cuda.device_count()):
            told = torch.cuda.memory_stats_as_nested_dict(device)
            row = row_of(told, device, now, peaks_are_per_step=device in self._was_reset)
            if row is not None:
                yield row
                if self._resets:
                    torch.cuda.reset_peak_memory_stats(device)
                    self._was_reset.add(device)


def row_of(told: dict[str, Any], device: int, now_ns: int, *, peaks_are_per_step: bool = False) -> tuple[Any, ...] | None:
    """A row of what `torch.cuda.memory_stats_as_nested_dict` tells; None for a device that this process never used.

    Examples
    --------
    >>> row_of({"reserved_bytes": {"all": {"current": 0, "peak": 0}}}, 0, 5) is None
    True
    """
    sizes = [told.get(name, {}).get("all", {}).get(moment) for name, moment in _SIZES]
    if not told.get("reserved_bytes", {}).get("all", {}).get("peak"):
        return None
    return (device, now_ns, *sizes, peaks_are_per_step, *(told.get(name) for name in _COUNTERS))
