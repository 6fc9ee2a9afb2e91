"""What the background thread of a recording asks: collectors of samples, and a recorder that drains its own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from perfnb.record.gaps import Gaps
from perfnb.record.sink import Row

Rows = Mapping[str, Iterable[Row]]
"""Table to its new rows, in the columns of `perfnb.record.rows.COLUMNS`."""

Flusher = Callable[[], Rows | None]
"""Gives what a recorder has gathered since the last call, or appends it to the sink itself and gives None."""


class Collector(Protocol):
    """Something that is asked for rows again and again, always by the same thread.

    Attributes
    ----------
    table
        The table that it fills; a failure of the whole collector is a gap of it.
    interval_s
        Time from one question to the next.
    gaps
        What it could not collect, and why.
    """

    table: str
    interval_s: float
    gaps: Gaps

    def collect(self, now_ns: int) -> Rows:
        """Rows of this moment (time.perf_counter_ns)."""
        ...

    def close(self) -> None:
        """Give back what it holds open: nothing is asked any more."""
        ...

    def abandon(self) -> None:
        """Forget what it holds, in a forked child: nothing may be called that the parent's handles belong to."""
        ...
