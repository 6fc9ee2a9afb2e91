"""Bytes of a trace file, decompressed piece by piece, and what a file is that is no trace."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Never, cast

from isal import igzip, isal_zlib
from tqdm.auto import tqdm

from perfnb.errors import EXPORT_HINT, TraceFormatError

PIECE_BYTES: Final = 8 << 20
PROGRESS_FROM_BYTES: Final = 4 << 20  # of the file as stored: smaller ones are read in well under a second

_ISAL_ERROR: Final = cast("type[Exception]", isal_zlib.error)
_GZIP: Final = b"\x1f\x8b"
_KNOWN: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<", "HTML or XML (a download page?), not JSON"),
    (b"\x80", "a pickle (a memory snapshot?), not JSON; pickles are never loaded here"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"PAR1", "a Parquet file, not JSON"),
)


def pieces(path: Path) -> Iterator[bytes]:
    """Content of a plain or gzip file in pieces of at most `PIECE_BYTES`, known by its content whatever its name.

    Raises
    ------
    TraceFormatError
        If the file is empty or cannot be opened, or its gzip stream is damaged or cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(2)
            file.seek(0)
            if not head:
                message = f"{path.name} is empty (0 bytes): {EXPORT_HINT}"
                raise TraceFormatError(message)
            stream = _unzipped(file) if head == _GZIP else file
            with tqdm(
                total=size,
                unit="B",
                unit_scale=True,
                desc=f"reading {path.name}",
                leave=False,
                disable=None if size >= PROGRESS_FROM_BYTES else True,
            ) as progress:
                yield from _read(stream, path, file, progress)
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror or error}"
        raise TraceFormatError(message) from error


def _unzipped(file: IO[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", igzip.GzipFile(fileobj=file))  # type: ignore[no-untyped-call]  # isal ships no signature


def _read(stream: IO[bytes], path: Path, file: IO[bytes], progress: tqdm[Never]) -> Iterator[bytes]:
    done = 0
    while True:
        try:
            piece = stream.read(PIECE_BYTES)
        except EOFError as error:
            message = (
                f"{path.name} ends early: its gzip stream is cut off after byte {done:,} (uncompressed) "
                "(a crashed job, a full disk or a broken download): record or copy it again"
            )
            raise TraceFormatError(message) from error
        except (zlib.error, _ISAL_ERROR, OSError) as error:
            message = f"{path.name} is damaged: its gzip stream fails after byte {done:,} (uncompressed): {error}"
            raise TraceFormatError(message) from error
        progress.update(file.tell() - progress.n)
        if not piece:
            return
        done += len(piece)
        yield piece


def what_it_is(head: bytes) -> str | None:
    """What a file that is not JSON seems to be, from its first bytes; None for JSON."""
    for start, description in _KNOWN:
        if head.startswith(start):
            return description
    return None if head[:1] in (b"{", b"[") else f"no JSON (it starts with {head[:20]!r})"
