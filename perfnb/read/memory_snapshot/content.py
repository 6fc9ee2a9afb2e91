"""What a memory file holds, known by its first bytes: a pickle, JSON, or a page with a picture; gzip or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec

from perfnb.errors import SnapshotFormatError
from perfnb.read.memory_snapshot.plain_pickle import Limits, load_plain

Kind = Literal["snapshot", "timeline"]

_GZIP: Final = b"\x1f\x8b"
_PICKLE: Final = b"\x80"
_SPACE: Final = b" \t\r\n\xef\xbb\xbf"
_SEPARATORS: Final = (b",", b"[", b"{")
_TRACE_KEYS: Final = frozenset({"traceEvents", "deviceProperties", "schemaVersion"})


def plain_content(path: Path, limits: Limits) -> tuple[Kind, Any]:
    """Which file it is and its plain data.

    Raises
    ------
    SnapshotFormatError
        If it cannot be read, is something else, or is over a limit.
    """
    name = path.name
    data = _bytes(path, limits)
    if data[:1] == _PICKLE:
        return "snapshot", load_plain(data, limits, name, is_walked=False)
    start = data[:4096].lstrip(_SPACE)[:1]
    if start == b"<":
        _wrong(name, "is a page with a picture of a timeline, and holds no numbers: export one to .raw.json.gz instead")
    if start not in (b"{", b"["):
        _wrong(name, "is neither a pickle of protocol 2 to 5 nor JSON: dump one with torch.cuda.memory._dump_snapshot(path)")
    if sum(map(data.count, _SEPARATORS)) > limits.opcodes:
        _wrong(name, f"has more than {limits.opcodes:,} values, the limit")
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        message = f"{name}: is no JSON: {error}"
        raise SnapshotFormatError(message) from None
    if isinstance(plain, dict) and _TRACE_KEYS & plain.keys():
        _wrong(name, "is a profiler trace, no memory snapshot: read it with perfnb.read_trace")
    return ("timeline" if isinstance(plain, list) else "snapshot"), plain


def _bytes(path: Path, limits: Limits) -> bytes:
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP
            file.seek(0)
            if is_packed:
                with gzip.open(file) as unpacked:
                    data = unpacked.read(limits.file_bytes + 1)
            else:
                data = file.read(limits.file_bytes + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"{path.name}: is a damaged gzip file: {error}"
        raise SnapshotFormatError(message) from None
    except OSError as error:
        message = f"{path.name}: cannot be read: {error.strerror or error}"
        raise SnapshotFormatError(message) from None
    if len(data) > limits.file_bytes:
        _wrong(path.name, f"is over the limit of {limits.file_bytes:,} bytes")
    if not data:
        _wrong(path.name, "is empty")
    return data


def _wrong(name: str, what: str) -> NoReturn:
    message = f"{name}: {what}"
    raise SnapshotFormatError(message)
