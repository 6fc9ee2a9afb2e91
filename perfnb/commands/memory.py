"""`perfnb memory`: who holds the memory, how near its limit is, and why it ran out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perfnb import json_output
from perfnb.commands import memory_text
from perfnb.commands.options import add_config, add_json, config_of
from perfnb.errors import OutOfMemoryTextError, SnapshotFormatError
from perfnb.read.any_run import read_any
from perfnb.read.memory_snapshot import out_of_memory, read_memory_snapshot
from perfnb.run import Run
from perfnb.whatif.memory_report import memory_reports

if TYPE_CHECKING:
    from perfnb.commands.known import Subparsers

_GIB: Final = 1 << 30
_LONGEST_TEXT: Final = 50_000_000
_BINARY: Final = (b"\x80", b"\x1f\x8b")
_JSON: Final = (b"{", b"[")
_NO_TEXT: Final = frozenset({".pickle", ".pkl", ".html"})
_TRACE_ENDINGS: Final = (".pt.trace.json", ".pt.trace.json.gz")


def add_to(subparsers: Subparsers) -> None:
    """Add the parser of `perfnb memory`."""
    parser = subparsers.add_parser(
        "memory",
        help="who holds the memory, how near the limit is, why it ran out",
        description="PATH is a memory snapshot of torch (nothing in it is run), a trace recorded with profile_memory=True, a run "
        "folder, or a text file (a log) with an out-of-memory error.",
    )
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="snapshot, trace, run folder, or text with an out-of-memory error"
    )
    parser.add_argument(
        "--usable-gib",
        type=float,
        metavar="GIB",
        help="memory of each device less what others hold (default: as recorded)",
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(answer=answer)


def answer(options: argparse.Namespace) -> str:
    """Verdict, what holds the memory at its peak and over time, and what other settings of the allocator would do.

    Parameters
    ----------
    options
        `path`, `usable_gib`, `config`, `json`.

    Returns
    -------
    str
        Sentences, tables and a chart in plain text, or one JSON object.

    Raises
    ------
    SnapshotFormatError
        If nothing in the file tells of memory.
    """
    path = options.path
    if path.is_file() and not _is_data(path):
        return _of_text(path, is_json=options.json)
    try:
        run = _read(path)
    except SnapshotFormatError as error:
        if "is no JSON" not in str(error):  # a log may begin with a bracket
            raise
        return _of_text(path, is_json=options.json)
    usable = None if options.usable_gib is None else int(options.usable_gib * _GIB)
    reports = memory_reports(run, config_of(options.config, path, run.config), usable_bytes=usable)
    if not reports:
        missing = run.missing.get("allocations") or run.missing.get("allocator") or "none was recorded"
        message = (
            f"{path.name}: tells nothing of memory: {missing}. Record with torch.profiler.profile(profile_memory=True), "
            "perfnb.record on a GPU, or dump a memory snapshot"
        )
        raise SnapshotFormatError(message)
    notes = [note for note in run.notes if "ran out of memory" not in note]
    if options.json:
        return json_output.as_json(memory_text.reports_json(reports, notes))
    return memory_text.reports_text(reports, notes)


def _is_data(path: Path) -> bool:
    """Whether a file is a pickle, gzip or JSON by its first bytes or its name; else it is taken for text."""
    if path.suffix.lower() in _NO_TEXT:
        return True
    with path.open("rb") as file:
        start = file.read(256)
    return start.startswith(_BINARY) or start.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(_JSON)


def _of_text(path: Path, *, is_json: bool) -> str:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - _LONGEST_TEXT, 0))
        text = file.read().decode("utf-8", "replace")
    if not text.strip():
        message = f"{path.name}: is empty: name a memory snapshot, a trace, or a text with an out-of-memory error"
        raise SnapshotFormatError(message)
    try:
        error = out_of_memory(text)
    except OutOfMemoryTextError as problem:
        message = f"{path.name}: is neither a snapshot nor a trace, and as a text it has {problem}"
        raise OutOfMemoryTextError(message) from None
    if is_json:
        return json_output.as_json({"out_of_memory": memory_text.out_of_memory_json(error)})
    return memory_text.out_of_memory_text(error)


def _read(path: Path) -> Run:
    if path.is_dir() or path.name.endswith(_TRACE_ENDINGS):
        return read_any(path)
    try:
        return read_memory_snapshot(path)
    except SnapshotFormatError as error:
        if "profiler trace" not in str(error):
            raise
        return read_any(path)
