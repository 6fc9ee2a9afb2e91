"""Entries of an event list -> rows, by msgspec: the parser that is always there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress
from operator import attrgetter
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from perfnb.read.kineto.arguments import DEVICE_CATEGORIES, DEVICE_ROWS, GROUPS, HOST_ROWS, MEMORY_ROWS
from perfnb.read.kineto.columns import (
    ABSENT,
    COMPLETE,
    HEAD,
    INTEGERS,
    MEMORY,
    MEMORY_NAME,
    TEXTS,
    Batch,
    Columns,
    Stop,
    TokenDict,
    Tokens,
    is_skipped,
    value_of,
)
from perfnb.read.kineto.stamps import MISSING, nanoseconds

_RAW: Final = msgspec.Raw(b"")
_COLLECTIVE_KEY: Final = b'"Collective name"'
_COMPLETE: Final = b'"X"'


class Entry(msgspec.Struct, gc=False):
    """One entry of the event list; every value stays text until it is needed, so that no digit is lost to float64."""

    ph: msgspec.Raw = _RAW
    cat: msgspec.Raw = _RAW
    name: msgspec.Raw = _RAW
    pid: msgspec.Raw = _RAW
    tid: msgspec.Raw = _RAW
    ts: msgspec.Raw = _RAW
    dur: msgspec.Raw = _RAW
    args: msgspec.Raw = _RAW


_DECODE: Final[Callable[[bytes], list[Entry]]] = msgspec.json.Decoder(list[Entry]).decode
_DECODE_ONE: Final[Callable[[bytes], Entry]] = msgspec.json.Decoder(Entry).decode


_SEPARATOR: Final = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_BETWEEN: Final = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_ERROR_BYTE: Final = re.compile(r"\(byte (\d+)\)$")
_TRIES: Final = 32  # boundaries; the first is one but at the end of the list or at damage
_FEWEST_BYTES: Final = 2  # an entry is at least {}
_BACK_BYTES: Final = 1 << 12  # how far to look back for a boundary at a time


def _boundary(text: bytes, start: int, before: int) -> int | None:
    """Position after the last brace in text[start:before] that closes what may be an entry, with another one after it."""
    high = before
    while high > start + _FEWEST_BYTES:
        low = max(start, high - _BACK_BYTES)
        found = [match.start() for match in _BETWEEN.finditer(text, low, before)]
        if found:
            return found[-1] + 1
        high = low
    return None


class StructParser:
    """Rows of entries that msgspec decodes.

    Attributes
    ----------
    columns
        What was found so far.
    """

    def __init__(self, *, python: bool, tokens: Tokens | None = None) -> None:
        self._tokens = TokenDict() if tokens is None else tokens
        self._python = python
        self._fates: dict[bytes, int | None] = {}
        self.columns = Columns(self._tokens)

    def stretch(self, text: bytes, start: int) -> tuple[int, int, Stop]:
        """Take whole entries from a position on; see `Parser.stretch`.

        A boundary between entries is tried from the back. Where the text does not decode, the boundary before the byte that the
        error names is next, or one half way back where it names none.
        """
        first = _SEPARATOR.match(text, start).end()  # type: ignore[union-attr]  # it matches the empty text too
        before = len(text)
        for _ in range(_TRIES):
            boundary = _boundary(text, first, before)
            if boundary is None:
                break
            try:
                return self.entries(text[first:boundary]), boundary, Stop.MORE
            except (msgspec.DecodeError, RecursionError) as error:
                found = _ERROR_BYTE.search(str(error))
                before = first + (int(found.group(1)) - 1 if found else (boundary - first) // 2)
        return 0, start, Stop.ODD

    def entries(self, text: bytes) -> int:
        """Take entries that are parted by commas, and say how many there were.

        Raises
        ------
        msgspec.DecodeError, RecursionError
            If the text is anything else; then nothing was taken.
        """
        entries = _DECODE(b"[" + text + b"]")
        self._add(entries)
        return len(entries)

    def entry(self, text: bytes) -> bool:
        """Take one JSON value; False where it is no object, so that nothing was taken.

        Raises
        ------
        msgspec.DecodeError, RecursionError
            If the text is no JSON.
        """
        try:
            self._add([_DECODE_ONE(text)])
        except msgspec.ValidationError:
            return False
        return True

    def _add(self, entries: Sequence[Entry]) -> None:
        phases = list(map(bytes, map(_PH, entries)))
        complete = [entry for entry, ph in zip(entries, phases, strict=True) if ph == _COMPLETE]
        others = [entry for entry, ph in zip(entries, phases, strict=True) if ph != _COMPLETE]
        self._add_complete(complete)
        self._add_others(others)

    def _add_complete(self, entries: Sequence[Entry]) -> None:
        categories = list(map(bytes, map(_CAT, entries)))
        for token, count in Counter(categories).items():
            if self._fate(token) is None:
                self.columns.counts[category_of(token)] += count
        fates = list(map(self._fates.__getitem__, categories))
        kept = [entry for entry, fate in zip(entries, fates, strict=True) if fate is not None]
        if not kept:
            return
        arguments = list(map(bytes, map(_ARGS, kept)))
        group = np.array([fate for fate in fates if fate is not None], dtype=np.int8)
        group += np.fromiter((_COLLECTIVE_KEY in each for each in arguments), dtype=np.int8, count=len(arguments))
        self.columns.batches.append(self._batch(COMPLETE, kept, arguments, group))

    def _add_others(self, entries: Sequence[Entry]) -> None:
        is_memory = [bytes(entry.name) == MEMORY_NAME for entry in entries]
        kept = list(compress(entries, is_memory))
        for token, count in Counter(
            bytes(entry.ph) for entry, is_row in zip(entries, is_memory, strict=True) if not is_row
        ).items():
            self.columns.counts[f"ph {_shown(token)}"] += count
        if kept:
            group = np.full(len(kept), MEMORY_ROWS, dtype=np.int8)
            self.columns.batches.append(self._batch(MEMORY, kept, list(map(bytes, map(_ARGS, kept))), group))

    def _batch(self, kind: int, kept: Sequence[Entry], arguments: Sequence[bytes], group: NDArray[np.int8]) -> Batch:
        size = len(kept)
        texts = np.full((len(HEAD) + len(TEXTS), size), ABSENT, dtype=np.int32)
        for row, field in enumerate((_CAT, _NAME, _PID, _TID)):
            texts[row] = self._tokens.codes(list(map(bytes, map(field, kept))))
        batch = Batch(
            kind=np.full(size, kind, dtype=np.int8),
            start=nanoseconds(list(map(bytes, map(_TS, kept)))),
            duration=nanoseconds(list(map(bytes, map(_DUR, kept)))),
            integers=np.full((len(INTEGERS), size), MISSING, dtype=np.int64),
            texts=texts,
        )
        for number in np.unique(group).tolist():
            rows = np.flatnonzero(group == number)
            GROUPS[number].fill(batch, rows, [arguments[row] for row in rows.tolist()], self._tokens)
        return batch

    def _fate(self, token: bytes) -> int | None:
        """Group of the complete events of a category, without a collective; None where they are skipped."""
        if token not in self._fates:
            category = category_of(token)
            group = DEVICE_ROWS if category in DEVICE_CATEGORIES else HOST_ROWS
            self._fates[token] = None if is_skipped(category, python=self._python) else group
        return self._fates[token]


def category_of(token: bytes) -> str:
    """Category in lower case from its JSON value."""
    value, _ = value_of(token) if token else (None, False)
    return "" if value is None else str(value).lower()


def _shown(token: bytes) -> str:
    value, _ = value_of(token) if token else (None, False)
    return str(value)


_PH, _CAT, _NAME, _PID, _TID, _TS, _DUR, _ARGS = map(attrgetter, ("ph", "cat", "name", "pid", "tid", "ts", "dur", "args"))
