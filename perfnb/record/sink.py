"""Where a recorder's rows go: memory here, a run folder in `perfnb.record.run_folder`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from perfnb.record.rows import COLUMNS

Row = Sequence[Any]


class Sink(Protocol):
    """A place for rows; `append` may be called from any thread, and keeps the order of the rows of a table."""

    header: Mapping[str, Any]

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """Keep rows of a table of `perfnb.record.rows.COLUMNS`."""
        ...

    def close(self, state: str, reason: str) -> None:
        """No more rows come; how the recording ended ("finished" or "failed") and why, in words."""
        ...


class MemorySink:
    """Rows kept in this process.

    Attributes
    ----------
    header
        What holds for the whole recording, see `perfnb.record.header.header`.
    rows
        Table to its rows.
    keep_rows
        How many rows of each table are kept, the newest; None for all.
    rank_folder
        Where the traces of a profiler's window lie; None where none is taken.
    """

    def __init__(self, header: Mapping[str, Any], keep_rows: int | None = None) -> None:
        self.header = header
        self.keep_rows = keep_rows
        self.rank_folder: Path | None = None
        self.rows: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        self.state, self.reason = "running", ""
        self._lock = threading.Lock()

    def append(self, table: str, rows: Iterable[Row]) -> None:
        """See `Sink`."""
        with self._lock:
            self.rows[table].extend(rows)
            if self.keep_rows is not None:
                del self.rows[table][: -self.keep_rows]

    def close(self, state: str, reason: str) -> None:
        """See `Sink`."""
        self.state, self.reason = state, reason
