"""Bytes of a trace file, decompressed piece by piece, and what a file is that is no trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Never, cast

from isal import isal_zlib
from tqdm.auto import tqdm

from perfnb.errors import EXPORT_HINT, TraceFormatError

PIECE_BYTES: Final = 1 << 20  # of text: what is decoded at a time stays in the cache of a core
PROGRESS_FROM_BYTES: Final = 4 << 20  # of the file as stored: smaller ones are read in well under a second

_ISAL_ERROR: Final = cast("type[Exception]", isal_zlib.error)
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31  # zlib: 15 bits of window, 16 more for a gzip header
_LEAST_GZIP: Final = 18  # bytes: header and trailer
_STORED_BYTES: Final = 1 << 18  # compressed bytes read at a time
_KNOWN: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<", "HTML or XML (a download page?), not JSON"),
    (b"\x80", "a pickle (a memory snapshot?), not JSON; pickles are never loaded here"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"PAR1", "a Parquet file, not JSON"),
)


@dataclass
class Pieces:
    """Content of a plain or gzip file in pieces of about `PIECE_BYTES`, known by its content whatever its name.

    Attributes
    ----------
    path
        The file.
    cut_off
        Whether its gzip stream ended early; known once the pieces are exhausted.
    damage
        What the decompressor said where the stream is damaged, after the last good piece; "" while there is none.
    """

    path: Path
    cut_off: bool = False
    damage: str = ""

    def __iter__(self) -> Iterator[bytes]:
        """Pieces in the order of the file.

        Raises
        ------
        TraceFormatError
            If the file is empty or cannot be opened.
        """
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                head = file.read(2)
                file.seek(0)
                if not head:
                    message = f"{self.path.name} is empty (0 bytes): {EXPORT_HINT}"
                    raise TraceFormatError(message)
                with tqdm(
                    total=size,
                    unit="B",
                    unit_scale=True,
                    desc=f"reading {self.path.name}",
                    leave=False,
                    disable=None if size >= PROGRESS_FROM_BYTES else True,
                ) as progress:
                    yield from self._unzipped(file, progress) if head == _GZIP else _plain(file, progress)
        except OSError as error:
            message = f"{self.path.name} cannot be read: {error.strerror or error}"
            raise TraceFormatError(message) from error

    def _unzipped(self, file: IO[bytes], progress: tqdm[Never]) -> Iterator[bytes]:
        """Content of all gzip members, one after the other; zeros after a member are padding."""
        member = None
        stored = file.read(_STORED_BYTES)
        parts: list[bytes] = []
        size = 0
        while stored or member is not None:
            if member is None:
                stored = stored.lstrip(b"\0") or file.read(_STORED_BYTES)
                if not stored.strip(b"\0"):
                    continue
                member = isal_zlib.decompressobj(wbits=_GZIP_WINDOW)
            try:
                part = member.decompress(stored, PIECE_BYTES - size)
            except (_ISAL_ERROR, OSError) as error:
                self.damage = str(error)
                break
            parts.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
            if member.eof:
                stored, member = member.unused_data or file.read(_STORED_BYTES), None
            else:
                stored = member.unconsumed_tail or file.read(_STORED_BYTES)
                if not stored and not part:
                    self.cut_off = True
                    break
            progress.update(file.tell() - progress.n)
        if parts:
            yield b"".join(parts)


def _plain(file: IO[bytes], progress: tqdm[Never]) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        progress.update(len(piece))
        yield piece


def text_bytes(path: Path) -> int:
    """Size of a file's content, from the end of a gzip file (of its last member, up to 4 GB: RFC 1952, ISIZE); else 0."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(2) != _GZIP or size < _LEAST_GZIP:
                return size
            file.seek(-4, 2)
            return max(size, int.from_bytes(file.read(4), "little"))
    except OSError:
        return 0


def what_it_is(head: bytes) -> str | None:
    """What a file that is not JSON seems to be, from its first bytes; None for JSON."""
    for start, description in _KNOWN:
        if head.startswith(start):
            return description
    return None if head[:1] in (b"{", b"[") else f"no JSON (it starts with {head[:20]!r})"
