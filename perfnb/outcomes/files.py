"""Files of the accuracy ledger: JSON Lines that are only ever appended to, one file per writer, merged on reading."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from platformdirs import user_data_path

from perfnb.errors import OutcomesError

FOLDER_VARIABLE: Final = "PERFNB_OUTCOMES"
"""Environment variable that names the ledger's folder: a shared one makes it a team's."""

SUFFIX: Final = ".jsonl"
_LONGEST_LINE: Final = 1 << 20  # a row takes some 2 KB: longer lines are none
_lock = threading.Lock()
_own_files: dict[tuple[str, int], str] = {}


def ledger_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where the ledger lies: as given, else as `PERFNB_OUTCOMES` says, else in the user's data folder.

    Examples
    --------
    >>> ledger_folder("shared").name
    'shared'
    """
    if folder is not None:
        return Path(folder)
    named = os.environ.get(FOLDER_VARIABLE, "")
    return Path(named) if named else user_data_path("perfnb", appauthor=False) / "outcomes"


def append(row: Mapping[str, Any], folder: Path) -> None:
    """Add one row to this process's own file, in one write that has reached the disk when this returns.

    No two writers share a file, so that none can damage another's rows, on network file systems neither; a crash leaves at
    most one torn line, at the end of its own file.

    Raises
    ------
    OutcomesError
        If the folder cannot be written.
    """
    line = json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    key = (str(folder.absolute()), os.getpid())  # a forked child is another writer
    with _lock:
        name = _own_files.setdefault(key, f"{uuid4().hex}{SUFFIX}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            try:
                written = os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            del _own_files[key]  # what follows a torn line goes to a new file
            message = (
                f"the accuracy ledger at {folder} cannot be written ({error.strerror}): name another folder in {FOLDER_VARIABLE}"
            )
            raise OutcomesError(message) from error
        if written != len(line):
            del _own_files[key]
            message = f"the accuracy ledger at {folder} took only a part of a row, which readers will skip: is the disk full?"
            raise OutcomesError(message)


def stored_lines(folder: Path) -> Iterator[tuple[str, bytes | str]]:
    """Name of the file and its next line, of every file in the order of names; a text where something is wrong with a file.

    Raises
    ------
    OutcomesError
        If there is a folder that cannot be read; a folder that is not there has no lines.
    """
    for path in _files(folder):
        try:
            with path.open("rb") as stream:
                while line := stream.readline(_LONGEST_LINE):
                    if line.endswith(b"\n"):
                        if line.strip():
                            yield path.name, line
                    elif len(line) < _LONGEST_LINE:
                        yield path.name, "the last line is torn, its writer was stopped or is writing; it is skipped"
                    else:  # no row is so long: on to the next line
                        yield path.name, b""
                        while (rest := stream.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                            pass
        except OSError as error:  # a file that its writer keeps to itself is no reason to lose the others'
            yield path.name, f"cannot be read ({error.strerror}) and is skipped"


def state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of each file: what tells whether a ledger has changed."""
    return tuple((path.name, found.st_size, found.st_mtime_ns) for path in _files(folder) for found in (path.stat(),))


def _files(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    if not folder.is_dir():
        message = f"the accuracy ledger is a folder of {SUFFIX} files, and {folder} is none: name a folder in {FOLDER_VARIABLE}"
        raise OutcomesError(message)
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.is_file())
    except OSError as error:
        message = f"the accuracy ledger at {folder} cannot be read: {error.strerror}"
        raise OutcomesError(message) from error
