"""A run as a file for ui.perfetto.dev: its own rows, and beside them our steps, ledger, idle causes and findings as tracks."""

from __future__ import annotations

import gzip
import os
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

from perfnb.errors import PerfnbError
from perfnb.perfetto_events import trace_text
from perfnb.run import Run

WHERE: Final = "open https://ui.perfetto.dev and drop the file on the page: it is read in the browser and sent nowhere"

_LEVEL: Final = 5  # of gzip: half the time of 9 for a file little larger


@dataclass(frozen=True, slots=True)
class PerfettoFile:
    """A file that was written, and how to look at it."""

    path: Path
    how: str = WHERE

    def __str__(self) -> str:
        """Where it is and what to do."""
        return f"{self.path}: {self.how}"


def open_in_perfetto(run: Run, path: str | PathLike[str] | None = None, *, overwrite: bool = False) -> PerfettoFile:
    """Write a run as a trace that Perfetto's viewer opens, with what perfnb found as tracks of its own.

    Beside the host and device rows each rank has a process "perfnb" with tracks for its steps, the idle time of each device by
    cause, the findings, and a counter track with the parts of the step ledger. Nothing is opened, fetched or sent.
    Allocations, shapes and the arguments of collectives are not written: the file is for looking at, the trace stays the source.

    Parameters
    ----------
    run
        A run.
    path
        Where to write, a name that ends in .json or .json.gz; by default `perfnb_trace.json.gz` in the working folder.
    overwrite
        Whether an existing file may be replaced.

    Returns
    -------
    PerfettoFile
        The path, and how to open the file.

    Raises
    ------
    PerfnbError
        If the file exists, its folder does not, or the name ends otherwise.

    Notes
    -----
    Trace Event Format (the JSON that Chrome and Kineto write): slices are events of phase X, our tracks nestable async events
    (b, e) and counters (C), which are no device or host rows when the file is read again.
    """
    target = Path("perfnb_trace.json.gz" if path is None else path)
    if not target.name.endswith((".json", ".json.gz")):
        message = f"{target.name} would not open in Perfetto by its name: let it end in .json or .json.gz"
        raise PerfnbError(message)
    if target.exists() and not overwrite:
        message = f"{target.name} exists: pass overwrite=True to replace it, or another path"
        raise PerfnbError(message)
    if not target.parent.is_dir():
        message = f"the folder {target.parent} does not exist: make it first"
        raise PerfnbError(message)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".perfnb-", suffix=".json")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if target.name.endswith(".gz"):
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped:
                    zipped.writelines(trace_text(run))
            else:
                file.writelines(trace_text(run))
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return PerfettoFile(target)
