"""Rows of a log in any of its forms: list of dicts, dict of lists, DataFrame, CSV, JSONL, JSON or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import pandas as pd

from perfnb.errors import LogFormatError
from perfnb.read.log_text import lines_of, parsed, text_of
from perfnb.read.metric_cells import MOST_COLUMNS, flat
from perfnb.read.metric_frame import from_frame
from perfnb.text import clean

Source = pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | PathLike[str]
"""What a table of a log may be given as."""

_SEPARATORS: Final = (",", "\t", ";")
_PARQUET: Final = b"PAR1"
_SHOWN: Final = 80
_LISTS: Final = ("log_history", "history", "metrics", "records", "rows", "data", "logs")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one input: its frame as written, a label for messages, the base name of its file, and notes.

    `is_of_one_rank` says that one rank alone writes such a log, so that a step that is there again is no other rank's.
    """

    frame: pd.DataFrame
    label: str
    file: str | None = None
    notes: tuple[str, ...] = ()
    is_of_one_rank: bool = False


def rows_of(source: Source | object, label: str) -> Rows:
    """The rows of one input.

    Parameters
    ----------
    source
        A list of dicts, a dict of lists, a DataFrame, or a path to CSV, JSONL, JSON or Parquet.
    label
        Name of the input in messages.

    Raises
    ------
    LogFormatError
        If it is none of these, a file is damaged, or it is empty.
    """
    if isinstance(source, (str, PathLike)):
        rows = _file(Path(fspath(source)), label)
    elif isinstance(source, pd.DataFrame):
        rows = Rows(from_frame(source, label), label)
    elif isinstance(source, Mapping):
        rows = Rows(_from_lists(source, label), label)
    elif isinstance(source, Sequence):
        rows = Rows(_from_dicts(source, label), label)
    else:
        message = f"{label} is a {type(source).__name__}: pass a list of dicts, a dict of lists, a DataFrame or a path"
        raise LogFormatError(message)
    frame = rows.frame.rename(columns=str)
    if frame.columns.has_duplicates:
        twice = ", ".join(repr(clean(name, _SHOWN)) for name in frame.columns[frame.columns.duplicated()].unique()[:3])
        message = f"{rows.file or label} has two columns named {twice}: rename one"
        raise LogFormatError(message)
    frame = flat(frame, label)
    if frame.empty:
        message = f"{rows.file or label} holds no rows: pass at least one row of values"
        raise LogFormatError(message)
    if frame.columns.has_duplicates:
        message = f"{rows.file or label} holds values in lists or dicts under names that other columns have: rename those columns"
        raise LogFormatError(message)
    return Rows(frame, label, rows.file, rows.notes)


def _file(path: Path, label: str) -> Rows:
    if path.is_dir():
        message = f"{path.name} is a folder: name the file of {label}, or use read_training_log for folders of trainers"
        raise LogFormatError(message)
    try:
        with path.open("rb") as opened:
            start = opened.read(4096)
    except OSError as error:
        message = f"{path.name or path} cannot be read: {error.strerror or type(error).__name__}"
        raise LogFormatError(message) from error
    if start.startswith(_PARQUET):
        try:
            return Rows(from_frame(pd.read_parquet(path), label), label, path.name)
        except ImportError as error:
            message = f"{path.name} is Parquet, which needs pyarrow: pip install pyarrow"
            raise LogFormatError(message) from error
        except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
            message = f"{path.name} cannot be read as Parquet: {clean(error, 200)}"
            raise LogFormatError(message) from error
    content = text_of(path)
    if content.lstrip()[:1] == b"{" and not _is_one_object(content):
        objects, notes = lines_of(content, path.name)
        return Rows(_from_dicts(objects, label), label, path.name, notes)
    if content.lstrip()[:1] in (b"[", b"{"):
        return Rows(_from_json(parsed(content, path.name), path.name, label), label, path.name)
    if b"\0" in content[: len(start)]:
        message = f"{path.name} is no text: pass CSV, JSONL, JSON or Parquet"
        raise LogFormatError(message)
    return _from_csv(content, path.name, label)


def _is_one_object(content: bytes) -> bool:
    """Whether a text that starts with "{" is one JSON value rather than one per line."""
    first, _, rest = content.strip().partition(b"\n")
    if not rest.strip():
        return b'":[' in first.replace(b" ", b"") or first.count(b"{") > 1
    try:
        return not isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return True


def _from_json(value: Any, name: str, label: str) -> pd.DataFrame:
    if isinstance(value, list):
        return _from_dicts(value, label)
    if isinstance(value, dict):
        for key in _LISTS:
            if isinstance(value.get(key), list) and value[key] and isinstance(value[key][0], dict):
                return _from_dicts(value[key], label)
        return _from_lists(value, label)
    message = f"{name} holds a {type(value).__name__}: pass a list of objects or an object of lists"
    raise LogFormatError(message)


def _from_csv(content: bytes, name: str, label: str) -> Rows:
    import io  # noqa: PLC0415 - only here

    head = content.lstrip().partition(b"\n")[0].decode("utf-8", errors="replace")
    separator = max(_SEPARATORS, key=head.count)
    cut: list[str] = []
    lines = content.strip().split(b"\n")
    wanted, have = head.count(separator), lines[-1].decode("utf-8", errors="replace").count(separator)
    if len(lines) > 1 and have < wanted and not content.endswith(b"\n") and b'"' not in lines[-1]:
        content = b"\n".join(lines[:-1])
        cut.append(f"{name}: its last line is cut off, and was left out")
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            sep=separator,
            keep_default_na=False,
            na_values=[""],  # a blank is a value that was not written; "nan" is one that was
            encoding_errors="replace",
            skipinitialspace=True,
            low_memory=False,
        )
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        message = f"{name} cannot be read as CSV: {clean(error, 200)}"
        raise LogFormatError(message) from error
    texts = [column for column in frame.columns if not pd.api.types.is_numeric_dtype(frame[column].dtype)]
    for column in texts:  # a blank among texts is NaN, as a NaN that was written would be
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None)
    return Rows(frame, label, name, tuple(cut))


def _from_dicts(items: Sequence[Any], label: str) -> pd.DataFrame:
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            message = f"{label}: entry {number} is a {type(item).__name__}, not a dict of names and values"
            raise LogFormatError(message)
    names: dict[str, None] = {}
    for item in items:
        if len(names) > MOST_COLUMNS:
            message = f"{label} has more than {MOST_COLUMNS:,} different names: values must not be part of names"
            raise LogFormatError(message)
        names.update(dict.fromkeys(item))
    # object columns: a None or absent value is missing, a NaN was written, and both would become NaN
    return pd.DataFrame({name: pd.Series([item.get(name) for item in items], dtype=object) for name in names})


def _from_lists(lists: Mapping[str, Any], label: str) -> pd.DataFrame:
    columns = {
        name: values
        for name, values in lists.items()
        if isinstance(values, Iterable) and not isinstance(values, (str, Mapping)) and getattr(values, "ndim", 1) != 0
    }
    if not columns or len(columns) < len(lists):
        other = next((name for name in lists if name not in columns), None)
        message = f"{label} is a dict without rows: pass lists of equal length" + (
            f" ({clean(other, _SHOWN)!r} is a {type(lists[other]).__name__})" if other is not None else ""
        )
        raise LogFormatError(message)
    made = {name: list(values) for name, values in columns.items()}
    sizes = {len(values) for values in made.values()}
    if len(sizes) > 1:
        shown = ", ".join(f"{clean(name, _SHOWN)} {len(values):,}" for name, values in list(made.items())[:6])
        message = f"{label}: lists of different lengths ({shown}): each must have one value per row"
        raise LogFormatError(message)
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in made.items()})
