"""Text of log files: bounded, with byte-order marks gone, as JSON or as JSON lines of which the last may be cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from perfnb.errors import LogFormatError
from perfnb.text import clean

LARGEST_BYTES: Final = 4 << 30
"""Largest text file that is read: it is held in memory whole."""

_SHOWN: Final = 80


def text_of(path: Path) -> bytes:
    """The bytes of a text file, without its byte-order mark.

    Raises
    ------
    LogFormatError
        If it cannot be read, is empty or larger than `LARGEST_BYTES`.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            message = f"{path.name} has {size:,} bytes, over the {LARGEST_BYTES:,} that are read: pass a DataFrame"
            raise LogFormatError(message)
        content = path.read_bytes()
    except OSError as error:
        message = f"{path.name or path} cannot be read: {error.strerror or type(error).__name__}"
        raise LogFormatError(message) from error
    if not content.strip():
        message = f"{path.name} is empty: the log has no rows yet"
        raise LogFormatError(message)
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace").encode()
    return content


def lines_of(content: bytes, name: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The objects of a JSONL text, and notes on what was left out.

    A last line that is cut off, as of a job that was killed, is left out with a note.

    Raises
    ------
    LogFormatError
        If another line is no JSON object.
    """
    try:
        objects: list[Any] = msgspec.json.Decoder().decode_lines(content)
        notes: tuple[str, ...] = ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        objects, notes = _one_by_one(content, name)
    for number, item in enumerate(objects, start=1):
        if not isinstance(item, dict):
            message = f"{name}: entry {number} is a {type(item).__name__}, not an object of names and values"
            raise LogFormatError(message)
    return objects, notes


def parsed(content: bytes, name: str) -> Any:
    """The value of a JSON text; NaN and Infinity, which Python writes, are taken.

    Raises
    ------
    LogFormatError
        If it is no JSON.
    """
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            message = f"{name} is no JSON: {clean(error, 200)}"
            raise LogFormatError(message) from error


def _one_by_one(content: bytes, name: str) -> tuple[list[Any], tuple[str, ...]]:
    lines = content.split(b"\n")
    last = max(number for number, line in enumerate(lines) if line.strip())
    objects: list[Any] = []
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            objects.append(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:
                objects.append(json.loads(line))  # NaN and Infinity, as Python writes them
            except (ValueError, RecursionError) as error:
                if number == last and objects:
                    return objects, (f"{name}: its last line is cut off, and was left out",)
                message = f"{name}, line {number + 1} is no JSON object: {clean(line[:_SHOWN].decode('utf-8', 'replace'))!r}"
                raise LogFormatError(message) from error
    return objects, ()
