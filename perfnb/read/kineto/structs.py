"""Entries of an event list -> rows, by msgspec: the parser that is always there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

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
    Int64s,
    Stop,
    TokenDict,
    Tokens,
    integer_of,
    is_skipped,
    value_of,
)
from perfnb.read.kineto.stamps import MISSING, nanoseconds

_RAW: Final = msgspec.Raw(b"")
_COLLECTIVE_KEY: Final = b'"Collective name"'
_COMPLETE: Final = b'"X"'
UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises: for wrong JSON, bytes that are no UTF-8 or numbers of thousands of digits, nesting past the stack."""


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


def _arguments(name: str, integers: Iterable[str], texts: Iterable[str]) -> type[msgspec.Struct]:
    """Struct with one field for each key of the given columns, named as the key."""
    columns: list[tuple[str, Any, Any]] = [(key, Any, MISSING) for column in integers for key in INTEGERS[column]]
    columns += [(key, msgspec.Raw, _RAW) for column in texts for key in TEXTS[column]]
    fields = [
        (f"f{number}", kind, msgspec.field(name=key, default=default)) for number, (key, kind, default) in enumerate(columns)
    ]
    return msgspec.defstruct(name, fields, gc=False)


_FIRST_COLLECTIVE: Final = len(HEAD) + list(TEXTS).index("collective")
_COLLECTIVE: Final = tuple(TEXTS)[tuple(TEXTS).index("collective") :]
_HOST: Final = (("correlation", "stream", "sequence", "waits_on_stream", "waits_on_correlation"), ("shapes", "types"))
_DEVICE: Final = (("correlation", "stream", "device", "bytes"), ("grid", "block", "occupancy"))
_MEMORY: Final = (("address", "allocation", "allocated", "reserved", "device_type", "device_id", "order"), ())
DEVICE_CATEGORIES: Final = frozenset(
    {"kernel", "gpu_memcpy", "memcpy", "gpu_memset", "memset", "mtia_ccp_events", "collective_comm"}
)


class _Group:
    """Rows of one kind that share the columns to be read from their arguments."""

    def __init__(self, name: str, integers: Sequence[str], texts: Sequence[str]) -> None:
        struct = _arguments(name, integers, texts)
        self._decode_all: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[struct]).decode  # type: ignore[valid-type]  # made above
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(struct).decode
        self._decode_keys: Callable[[bytes], Any] = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
        keys = iter(struct.__struct_fields__)
        self.integers = [(list(INTEGERS).index(column), [next(keys) for _ in INTEGERS[column]]) for column in integers]
        self.texts = [(len(HEAD) + list(TEXTS).index(column), [next(keys) for _ in TEXTS[column]]) for column in texts]
        self.collective = np.array([row for row, _ in self.texts if row >= _FIRST_COLLECTIVE], dtype=np.intp)

    def fill(self, batch: Batch, index: NDArray[np.intp], arguments: Sequence[bytes], tokens: Tokens) -> None:
        """Write the columns of the given rows; those of a collective only where there is its name."""
        values = self._values(arguments)
        for row, keys in self.integers:
            batch.integers[row, index] = _integers(list(map(attrgetter(keys[0]), values)))
        for row, keys in self.texts:
            found = list(map(attrgetter(keys[0]), values))
            for other in keys[1:]:
                found = [each or getattr(value, other) for each, value in zip(found, values, strict=True)]
            batch.texts[row, index] = tokens.codes(list(map(bytes, found)))
        if len(self.collective):
            unnamed = index[batch.texts[self.collective[0], index] == ABSENT]
            batch.texts[self.collective[:, np.newaxis], unnamed] = ABSENT

    def _values(self, arguments: Sequence[bytes]) -> list[Any]:
        try:
            return self._decode_all(b"[" + b",".join([each or b"{}" for each in arguments]) + b"]")
        except UNREADABLE:
            return [self._value(each) for each in arguments]

    def _value(self, text: bytes) -> Any:
        """Arguments of one event in which a value is out of its type's range: that value counts as absent."""
        try:
            return self._decode(text or b"{}")
        except UNREADABLE:
            pass
        return self._decode(_without_bad_values(text))


def _without_bad_values(text: bytes) -> bytes:
    try:
        values = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except UnicodeDecodeError:
        return _without_bad_values(text.decode("utf-8", "replace").encode())
    except UNREADABLE:
        return b"{}"  # arguments that are no object
    readable = {key: value_of(bytes(raw))[0] for key, raw in values.items()}
    return msgspec.json.encode({key: value for key, value in readable.items() if value is not None})


GROUPS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "host": _HOST,
    "host with a collective": (_HOST[0], (*_HOST[1], *_COLLECTIVE)),
    "device": _DEVICE,
    "device with a collective": (_DEVICE[0], (*_DEVICE[1], *_COLLECTIVE)),
    "memory": _MEMORY,
}
"""Groups of rows -> the columns of `INTEGERS` and of `TEXTS` that are read from their arguments."""

_GROUPS: Final = tuple(_Group(name, *columns) for name, columns in GROUPS.items())
_HOST_ROWS, _DEVICE_ROWS, _MEMORY_ROWS = 0, 2, 4
_LARGEST: Final = -MISSING
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
            group = np.full(len(kept), _MEMORY_ROWS, dtype=np.int8)
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
            _GROUPS[number].fill(batch, rows, [arguments[row] for row in rows.tolist()], self._tokens)
        return batch

    def _fate(self, token: bytes) -> int | None:
        """Group of the complete events of a category, without a collective; None where they are skipped."""
        if token not in self._fates:
            category = category_of(token)
            group = _DEVICE_ROWS if category in DEVICE_CATEGORIES else _HOST_ROWS
            self._fates[token] = None if is_skipped(category, python=self._python) else group
        return self._fates[token]


def category_of(token: bytes) -> str:
    """Category in lower case from its JSON value."""
    value, _ = value_of(token) if token else (None, False)
    return "" if value is None else str(value).lower()


def _shown(token: bytes) -> str:
    value, _ = value_of(token) if token else (None, False)
    return str(value)


def _integers(values: list[object]) -> Int64s:
    if set(map(type, values)) == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    return np.fromiter(
        (value if type(value) is int and -_LARGEST < value < _LARGEST else integer_of(value) for value in values),
        np.int64,
        len(values),
    )


_PH, _CAT, _NAME, _PID, _TID, _TS, _DUR, _ARGS = map(attrgetter, ("ph", "cat", "name", "pid", "tid", "ts", "dur", "args"))
