"""What could not be recorded, counted: one row per table, column, device and reason."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

LONGEST_REASON: Final = 200
"""Characters of a reason that are kept: some hold another library's message."""

MOST_REASONS: Final = 200
"""Different gaps that are told apart; a message that holds a number would make a new one each time."""

_FURTHER: Final = "further gaps, of which each has a reason of its own"


class Gap:
    """One thing that was missing, and how often.

    Attributes
    ----------
    count
        How often; whoever meets the same gap again adds one.
    """

    __slots__ = ("_key", "_written", "count", "first_ns")

    def __init__(self, table: str | None, column: str | None, device: int | None, reason: str, first_ns: int) -> None:
        self._key = (table, column, device, reason)
        self._written = 0
        self.first_ns = first_ns
        self.count = 0

    def row(self) -> tuple[Any, ...] | None:
        """Row of the table gaps; None where the last one still holds."""
        if self.count == self._written:
            return None
        self._written = self.count
        return (*self._key, self.first_ns, self.count)


class Gaps:
    """Gaps of one source; may be noted from any thread.

    Examples
    --------
    >>> gaps = Gaps()
    >>> gaps.note("gpu_samples", "power_w", 0, "Not Supported", 5)
    >>> gaps.note("gpu_samples", "power_w", 0, "Not Supported", 9)
    >>> gaps.fresh(), gaps.fresh()
    ([('gpu_samples', 'power_w', 0, 'Not Supported', 5, 2)], [])
    >>> gaps.note("gpu_samples", "power_w", 0, "Not Supported", 12)
    >>> gaps.fresh(), gaps.changed()
    ([], [('gpu_samples', 'power_w', 0, 'Not Supported', 5, 3)])
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gaps: dict[tuple[str | None, str | None, int | None, str], Gap] = {}
        self._unwritten: list[Gap] = []

    def open(self, table: str | None, column: str | None, device: int | None, reason: str, now_ns: int) -> Gap:
        """The gap of that table, column (None: the whole table), device and reason, whose `count` the caller raises."""
        key = (table, column, device, reason[:LONGEST_REASON])
        with self._lock:
            if key not in self._gaps and len(self._gaps) >= MOST_REASONS:
                key = (None, None, None, _FURTHER)
            gap = self._gaps.get(key)
            if gap is None:
                gap = self._gaps[key] = Gap(*key, now_ns)
                self._unwritten.append(gap)
            return gap

    def note(self, table: str | None, column: str | None, device: int | None, reason: str, now_ns: int, count: int = 1) -> None:
        """Count a gap once more, or `count` times."""
        self.open(table, column, device, reason, now_ns).count += count

    def fresh(self) -> list[Sequence[Any]]:
        """Rows of the gaps that were never handed out."""
        if not self._unwritten:
            return []
        with self._lock:
            gaps, self._unwritten = self._unwritten, []
        return [row for gap in gaps if (row := gap.row()) is not None]

    def changed(self) -> list[Sequence[Any]]:
        """Rows of all gaps whose count rose since they were last handed out."""
        with self._lock:
            self._unwritten = []
            gaps = list(self._gaps.values())
        return [row for gap in gaps if (row := gap.row()) is not None]
