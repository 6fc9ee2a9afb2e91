"""What a path names, whoever wrote it: a run that perfnb recorded, profiler traces, or the log of a trainer."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

from perfnb.errors import LogFormatError, NotATraceError, PerfnbError
from perfnb.read.kineto import read_kineto
from perfnb.read.metric_rows import Rows
from perfnb.read.metrics import run_of_rows
from perfnb.read.run_folder import read_run
from perfnb.read.training_log import FORMATS, read_training_log
from perfnb.read.training_log.formats import format_of
from perfnb.record.run_folder import HEADER
from perfnb.run import Run

_RANKS: Final = f"rank*/{HEADER}"
_TRACES: Final = (".json", ".json.gz")
_EVENTS: Final = b'"traceEvents"'
_EVENT: Final = b'"ph"'  # every event of a trace has a phase
_START: Final = 4096
_BLOCK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"


def read_any(path: str | PathLike[str], *more: str | PathLike[str]) -> Run:
    """Run of a folder that `perfnb.record` wrote, of one rank's folder in it, or else of profiler traces.

    Parameters
    ----------
    path
        File or folder.
    *more
        Further traces of the same job.

    Returns
    -------
    Run
        See `read_run` and `read_trace`.

    Raises
    ------
    PerfnbError
        If neither can be read there.
    """
    return read_kineto(path, *more) if more or not is_run_folder(path) else read_run(path)


def read_run_or_log(path: str | PathLike[str], *more: str | PathLike[str], units: Mapping[str, str] | None = None) -> Run:
    """As `read_any`, or else a run of a log that a trainer wrote (`read_training_log`), which tells of losses where no trace is.

    What is wrong is said of the trace or recording, where there is one, else of the log. `units` are those of the log's columns.
    """
    try:
        return read_any(path, *more)
    except PerfnbError as no_run:
        if more or is_run_folder(path):
            raise
        try:
            return read_training_log(path, units=units)
        except PerfnbError as no_log:
            raise _to_say(Path(path), no_run, no_log) from None


def read_log_with(
    path: Path, beside: Sequence[Rows], config: Mapping[str, Any] | None = None, *, units: Mapping[str, str] | None = None
) -> Run:
    """As `read_training_log`, with rows of memory or of the host beside those of the log.

    Parameters
    ----------
    path
        File or folder.
    beside
        Rows by their labels, memory_snapshots and system_metrics.
    config
        The training's config; the log's own by default.
    units
        Unit of columns, of the log and beside it, that do not say their own.

    Returns
    -------
    Run
        As `read_metrics` gives it.

    Raises
    ------
    LogFormatError
        If the log cannot be read, or the rows do not go with it.
    """
    log = FORMATS[format_of(path)](path)
    known = log.config if config is None else config
    run = run_of_rows([*log.rows, *beside], known, units=units, later_wins=True, missing=log.missing)
    return replace(run, notes=(*log.notes, *run.notes))


def is_run_folder(path: str | PathLike[str]) -> bool:
    """Whether `perfnb.record` wrote a folder.

    Examples
    --------
    >>> is_run_folder("data/samples/healthy")
    False
    """
    folder = Path(path).expanduser()
    return (folder / HEADER).is_file() or any(folder.glob(_RANKS))


def holds_trace(path: Path) -> bool:
    """Whether a file, or one in a folder, has the marks of a profiler trace: a list traceEvents, or a list of events.

    Examples
    --------
    >>> holds_trace(Path("data/samples/healthy")), holds_trace(Path("data/samples/logs"))
    (True, False)
    """
    files = [each for each in path.iterdir() if each.name.endswith(_TRACES)] if path.is_dir() else [path]
    return any(_is_trace(file) for file in files if file.is_file())


def _to_say(path: Path, no_run: PerfnbError, no_log: PerfnbError) -> PerfnbError:
    """Of the two errors, that of what is there."""
    if isinstance(no_run, NotATraceError):
        return no_log
    kind = ""
    with suppress(LogFormatError):
        kind = format_of(path)
    if not path.is_dir():
        return no_log if kind not in ("", "json") or (kind == "json" and _is_list_of_rows(path)) else no_run
    if kind or holds_trace(path):
        return no_run if holds_trace(path) else no_log
    return LogFormatError(f"{no_log}; name the file itself, or a folder of profiler traces (*.json or *.json.gz)")


def _is_list_of_rows(file: Path) -> bool:
    with file.open("rb") as opened:
        start = _text(opened.read(_START))
    return start.startswith(b"[") and start[1:].lstrip().startswith(b"{") and _EVENT not in start


def _is_trace(file: Path) -> bool:
    try:
        with file.open("rb") as raw:
            is_gzip = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            opened = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            text = _text(opened.read(_START))
            if not text.startswith(b"{"):
                return text.startswith(b"[") and _EVENT in text
            while _EVENTS not in text:
                block = opened.read(_BLOCK)
                if not block:
                    return False
                text = text[-len(_EVENTS) :] + block
            return True
    except (EOFError, zlib.error, gzip.BadGzipFile):  # no log is gzipped: what is damaged was to be a trace
        return True
    except OSError:
        return False


def _text(start: bytes) -> bytes:
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()
