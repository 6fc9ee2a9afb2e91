"""How many entries the event list of a damaged file holds, found with the standard library: what a reader must account for."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from typing import Final

_GZIP: Final = b"\x1f\x8b"
_ALL_FORMATS: Final = 47  # zlib: a gzip member with the largest window
_KEY: Final = re.compile(rb'"traceEvents"')
_LIST: Final = re.compile(r'"traceEvents"\s*:\s*\[')
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False)


@dataclass(frozen=True, slots=True)
class Present:
    """Entries of the event list.

    Attributes
    ----------
    entries
        Whole entries from the list's start up to its end or to the first place that is no JSON.
    is_whole
        Whether the document is JSON to its end, so that this is all there is.
    """

    entries: int
    is_whole: bool


def entries_present(content: bytes) -> Present | None:
    """What a file holds; None where it cannot be told: no event list, or the key more than once.

    Examples
    --------
    >>> entries_present(b'{"traceEvents": [{}, {"a": 1}, {"b"')
    Present(entries=2, is_whole=False)
    """
    text, is_intact = unzipped(content)
    if len(_KEY.findall(text)) > 1:
        return None
    decoded = text.decode("utf-8-sig", "replace").lstrip(" \t\n\r")
    if decoded.startswith("["):
        position = 1
    elif decoded.startswith("{") and (match := _LIST.search(decoded)):
        position = match.end()
    else:
        return None
    count, end = _count(decoded, position)
    if end is None or not is_intact:
        return Present(count, is_whole=False)
    try:
        json.loads(decoded, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return Present(count, is_whole=False)
    return Present(count, is_whole=True)


def unzipped(content: bytes) -> tuple[bytes, bool]:
    """Text of a plain or gzip file as far as it can be had, and whether that is all of it."""
    if not content.startswith(_GZIP):
        return content, True
    parts: list[bytes] = []
    while content.startswith(_GZIP):
        member = zlib.decompressobj(_ALL_FORMATS)
        try:
            parts.append(member.decompress(content))
        except zlib.error:
            parts.append(_byte_by_byte(content))
            return b"".join(parts), False
        if not member.eof:
            return b"".join(parts), False
        content = member.unused_data
    return b"".join(parts), not content.strip(b"\x00")


def _byte_by_byte(content: bytes) -> bytes:
    """What a damaged member gives before it fails."""
    member, found = zlib.decompressobj(_ALL_FORMATS), bytearray()
    try:
        for position in range(len(content)):
            found += member.decompress(content[position : position + 1])
    except zlib.error:
        pass
    return bytes(found)


def _count(text: str, position: int) -> tuple[int, int | None]:
    """Entries from a position on, and where the list ends; None where it does not."""
    count = 0
    while True:
        position = _after_space(text, position)
        if text.startswith("]", position):
            return count, position + 1
        if count:
            if not text.startswith(",", position):
                return count, None
            position = _after_space(text, position + 1)
        try:
            _, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return count, None
        count += 1


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
