"""read_run(): a run folder that perfnb wrote, or is still writing, becomes a Run."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

import msgspec

from perfnb import text
from perfnb.errors import RunFolderError
from perfnb.read import run_cache
from perfnb.read.recorded import RankRecording, run_of
from perfnb.read.recorded_columns import names_of
from perfnb.record.rank_lock import is_held
from perfnb.record.rows import COLUMNS, SCHEMA_VERSION
from perfnb.record.run_folder import END, HEADER, ROWS
from perfnb.run import Run

_RANK_FOLDER: Final = re.compile(r"rank(0|[1-9]\d{0,8})")
_TRACES: Final = ("*.json", "*.json.gz")
_SHOWN_LINES: Final = 5
_LARGEST: Final = 2**62
_USUAL_ROW_BYTES: Final = 320  # samples of a host or a GPU; rows of steps and phases are shorter
_ROWS_OF_LINES: Final = msgspec.json.Decoder(list)


def read_run(folder: str | PathLike[str]) -> Run:
    """Run that `perfnb.record(folder)` recorded, or records just now.

    Reads what is there: of a recording that was killed all but the rows that were not yet written, of one that runs all up to
    now. Damaged lines are left out and named in `Run.notes`. A large run that has ended is kept beside its files in
    FOLDER/.cache, where that can be written and pyarrow is installed, and read from there the next time.

    Parameters
    ----------
    folder
        The folder of the run, or of one of its ranks.

    Returns
    -------
    Run
        All ranks on one clock; `Run.recordings` says how each stands, `Run.notes` in words.

    Raises
    ------
    RunFolderError
        If the folder holds no recording, or one that a newer perfnb wrote.
    """
    path = Path(folder).expanduser()
    folders = _rank_folders(path)
    place = run_cache.place_of(path, folders)  # named by the files as they are now, before they are read
    kept = run_cache.load(place)
    if kept is not None and not any(is_held(each) for each in folders):
        return kept
    read, notes = _recordings(path, folders)
    run = run_of(read, source=[path.resolve().name], notes=notes)
    if all(each.state != "running" for each in read):
        run_cache.keep(place, run)
    return run


def newest_rows(folder: str | PathLike[str], count: int) -> tuple[RankRecording, ...]:
    """The newest rows of each table of a recording, by rank; of a recording of hours as quickly read as of one of seconds.

    Parameters
    ----------
    folder
        The folder of the run, or of one of its ranks; it may be written just now, by another process.
    count
        About so many rows of each table.

    Returns
    -------
    tuple of RankRecording
        One per rank, in order.

    Raises
    ------
    RunFolderError
        As `read_run`.
    """
    path = Path(folder).expanduser()
    return tuple(_recordings(path, _rank_folders(path), count)[0])


def _recordings(path: Path, folders: Sequence[Path], count: int | None = None) -> tuple[list[RankRecording], list[str]]:
    """Recordings of the ranks of one job, and what to say of the others."""
    read: list[RankRecording] = []
    skipped: list[str] = []
    for each in folders:
        header = _header(each)
        if isinstance(header, str):
            skipped.append(header)
        else:
            read.append(_recording(each, header, count))
    if not read:
        message = f"no recording in {path.name} can be read: " + "; ".join(skipped)
        raise RunFolderError(message)
    read, strangers = _of_one_job(read)
    return read, [*skipped, *strangers]


def _rank_folders(path: Path) -> list[Path]:
    """Folders of the ranks, in order."""
    if not path.is_dir():
        message = f"{path} is no folder: read_run reads the folder that perfnb.record(folder) wrote"
        if path.is_file():
            message += "; read a trace file with perfnb.read_trace"
        raise RunFolderError(message)
    if (path / HEADER).is_file():
        return [path]
    numbered = [
        (int(match[1]), each) for each in path.iterdir() if (match := _RANK_FOLDER.fullmatch(each.name)) and each.is_dir()
    ]
    if numbered:
        return [each for _, each in sorted(numbered)]
    traces = sorted({each.name for pattern in _TRACES for each in path.glob(pattern)})
    if traces:
        message = f"{path} holds no recording but {traces[0]}: read profiler traces with perfnb.read_trace"
        raise RunFolderError(message)
    message = f"{path} holds no recording: perfnb.record(folder) makes rank0/{HEADER} and more in it"
    raise RunFolderError(message)


def _header(folder: Path) -> dict[str, Any] | str:
    """Header of a rank's recording, or why it cannot be read.

    Raises
    ------
    RunFolderError
        If a newer perfnb wrote it.
    """
    try:
        header = msgspec.json.decode((folder / HEADER).read_bytes())
    except FileNotFoundError:
        return f"skipped {folder.name}: it has no {HEADER}, so its recording never began"
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return f"skipped {folder.name}: its {HEADER} cannot be read ({text.clean(error, 200)})"
    if not isinstance(header, dict):
        return f"skipped {folder.name}: its {HEADER} is no header of a recording"
    version = header.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        versions = header.get("versions")
        writer = versions.get("perfnb") if isinstance(versions, dict) else None
        message = (
            f"{folder} is written in version {version} of the format, by perfnb {text.name(writer or 'of unknown version')}; "
            f"this perfnb reads up to version {SCHEMA_VERSION}: upgrade with `pip install --upgrade perfnb`"
        )
        raise RunFolderError(message)
    lacking = [name for name in ("schema_version", "rank", "monotonic_ns", "wall_ns") if not _is_number(header.get(name))]
    if lacking:
        return f"skipped {folder.name}: its {HEADER} lacks {', '.join(lacking)}"
    match = _RANK_FOLDER.fullmatch(folder.name)
    return header | {"rank": int(match[1])} if match else header


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _recording(folder: Path, header: Mapping[str, Any], count: int | None = None) -> RankRecording:
    is_running = not (folder / END).exists() and is_held(folder)  # asked first: it may end while its rows are read
    end = _end(folder)
    state = end.get("state") if end.get("state") in ("finished", "failed") else "running" if is_running else "killed"
    rows: dict[str, Sequence[Sequence[Any]]] = {}
    notes: list[str] = []
    for table in COLUMNS:
        path = folder / f"{table}{ROWS}"
        rows[table], said = _rows(path, len(names_of(table, header)), count, is_running=state == "running")
        notes += said
    rows["gaps"] = [*rows["gaps"], *_dropped(end, names_of("gaps", header))]
    if end.get("failed_with"):
        notes.append(f"rows could not be written: {text.clean(end['failed_with'], 200)}; the table gaps counts them")
    return RankRecording(header, rows, str(state), str(end.get("reason") or ""), tuple(notes), folder)


def _end(folder: Path) -> dict[str, Any]:
    try:
        end = msgspec.json.decode((folder / END).read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return end if isinstance(end, dict) else {}


def _rows(path: Path, width: int, count: int | None = None, *, is_running: bool) -> tuple[list[list[Any]], list[str]]:
    """Whole rows of a file, about so many of the newest where a count is given, and what to say of the others."""
    try:
        data = path.read_bytes() if count is None else _last_bytes(path, count * _USUAL_ROW_BYTES)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{path.name} cannot be read: {error.strerror}"]
    whole = data[: data.rfind(b"\n") + 1]
    notes = [] if is_running or len(whole) == len(data) else [f"{path.name}: the last line was not written whole and is left out"]
    rows = _decoded(whole)
    if rows is not None and len(rows) == whole.count(b"\n") and min(map(len, rows), default=width) >= width:
        return rows, notes
    kept: list[list[Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        row = _decoded(line)
        if row is not None and len(row) == 1 and len(row[0]) >= width:
            kept.append(row[0])
        elif line.strip():
            damaged.append(number)
    if damaged:
        shown = ", ".join(map(str, damaged[:_SHOWN_LINES])) + (", ..." if len(damaged) > _SHOWN_LINES else "")
        lines = f"line {shown} is" if len(damaged) == 1 else f"{len(damaged):,} lines ({shown}) are"
        notes.append(f"{path.name}: {lines} damaged and left out")
    return kept, notes


def _last_bytes(path: Path, size: int) -> bytes:
    """The last whole lines of a file, so many bytes at most."""
    with path.open("rb") as file:
        start = max(file.seek(0, os.SEEK_END) - size, 0)
        file.seek(start)
        data = file.read(size)
    return data[data.find(b"\n") + 1 :] if start else data


def _decoded(lines: bytes) -> list[list[Any]] | None:
    """Rows of lines of JSON arrays; None if a line is something else."""
    was_on = gc.isenabled()
    gc.disable()  # a million lists and no cycle among them: looking for one takes longer than reading
    try:
        return _ROWS_OF_LINES.decode_lines(lines)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    finally:
        if was_on:
            gc.enable()


def _dropped(end: Mapping[str, Any], names: Sequence[str]) -> list[list[Any]]:
    """Rows of the table gaps for rows that could not be written."""
    dropped = end.get("dropped")
    why = f"rows could not be written: {end.get('failed_with')}"
    told = [
        {"table": table, "reason": why, "count": count}
        for table, count in (dropped.items() if isinstance(dropped, dict) else ())
        if _is_number(count)
    ]
    return [[each.get(name) for name in names] for each in told]


def _of_one_job(read: list[RankRecording]) -> tuple[list[RankRecording], list[str]]:
    """Recordings of the job that began last, and a sentence on each that another job left in the folder."""
    newest = max(read, key=lambda each: int(each.header["wall_ns"]))
    size = newest.header.get("world_size")
    own = [each for each in read if each.header.get("world_size") == size]
    notes = [
        f"skipped rank{each.header['rank']}: it is of another recording, of {text.clean(each.header.get('world_size'), 20)} "
        f"ranks, not of {text.clean(size, 20)}"
        for each in read
        if each not in own
    ]
    return own, notes
