"""Entries of an event list -> rows, by a scanner that numba compiles: the parser of large files (the extra `perfnb[fast]`)."""

from __future__ import annotations

import functools
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfnb.errors import PerfnbError
from perfnb.read.kineto.arguments import COLUMNS_OF, DEVICE_CATEGORIES
from perfnb.read.kineto.columns import (
    HEAD,
    INTEGERS,
    MEMORY_NAME,
    TEXTS,
    Batch,
    Int32s,
    Int64s,
    Stop,
    integer_of,
    is_skipped,
    value_of,
)
from perfnb.read.kineto.stamps import nanoseconds
from perfnb.read.kineto.structs import StructParser, category_of

SCAN_FROM_BYTES: Final = 100 << 20
"""Of a first text: below, numba's start (0.63 CPU s) costs more than the scanner saves.

Measured by benchmarks/scanner_crossover.py: 69 to 75 MB for traces in which nearly every entry is kept, 110 to 280 MB where most
are Python functions. Once started, the scanner took 2 to 5 times less than msgspec.
"""
_SOURCES: Final = ("scanner_memory", "scanner_grammar", "scanner_numbers", "scanner_tokens", "scanner_kernels")
_COMPILING_S: Final = 8  # measured: 6 to 8
_ROWS: Final = (1 << 14) + 24  # at a time; columns a power of two apart would share few places of the processor's cache
_FIXES: Final = 1 << 14
_PLACES: Final = 512  # first looked for in the lower half


class ScannerError(PerfnbError):
    """The scanner cannot run here."""


def available() -> bool:
    """Whether numba is installed (it is not imported: that takes half a second)."""
    return find_spec("numba") is not None


def pays(size: int) -> bool:
    """Whether the scanner reads a text of that many bytes sooner than msgspec; once started, it does so always."""
    return available() and (size >= SCAN_FROM_BYTES or _compiled.cache_info().currsize > 0)


class Found(NamedTuple):
    """Where the value of each key of one entry begins and ends; end 0 where the key is absent."""

    begins: Int64s
    ends: Int64s


class Layout(NamedTuple):
    """Which keys there are and which of them fill which columns of which group of rows, and how much room there is."""

    keys: NDArray[np.uint8]
    key_begins: Int64s
    places: Int64s
    integer_keys: Int64s
    text_keys: Int64s
    has_integer: Int64s
    has_text: Int64s
    memory_name: NDArray[np.uint8]
    key_count: int
    integer_columns: int
    text_columns: int
    keys_of_integer: int
    keys_of_text: int
    first_text_key: int
    collective_key: int
    memory_name_length: int
    rows: int
    fixes: int


class Rows(NamedTuple):
    """Columns that are being filled; `size` holds how many rows and `fixes` there are, and the bytes of the last entry."""

    kind: NDArray[np.int8]
    start: Int64s
    duration: Int64s
    integers: Int64s
    texts: Int32s
    fixes: Int64s
    size: Int64s


class ScanParser:
    """Rows of entries that the compiled scanner reads; it stops at whatever is not strictly valid and plain.

    Attributes
    ----------
    columns
        What was found so far; up to date whenever `stretch` or `entry` has returned.

    Raises
    ------
    ScannerError
        If numba is not installed, or cannot compile or keep what it compiled.
    """

    def __init__(self, *, python: bool) -> None:
        self._kernels = _compiled()
        self._tokens = self._kernels.TokenTable()
        self._entries = StructParser(python=python, tokens=self._tokens)
        self._python = python
        self._layout = _layout(self._kernels)
        self._found = Found(*np.zeros((2, len(self._layout.key_begins) - 1), dtype=np.int64))
        self._rows = _rows(self._kernels)
        self._first = 0  # row that is in no batch yet
        self._integers: dict[bytes, int] = {}
        self.columns = self._entries.columns

    def stretch(self, text: bytes, start: int) -> tuple[int, int, Stop]:
        """Take whole entries from a position on; see `Parser.stretch`."""
        kernels = self._kernels
        if start >= len(text):
            return 0, start, Stop.MORE
        stops = {kernels.MORE: Stop.MORE, kernels.END: Stop.END, kernels.ODD: Stop.ODD}
        address, found, layout = kernels.address_of(text), kernels.addresses(self._found), kernels.addresses(self._layout)
        taken, position = 0, start
        while True:
            here, position, status = kernels.scan(
                address, len(text), position, found, layout, self._tokens.addresses, kernels.addresses(self._rows)
            )
            taken += here
            self._settle(text)
            if status in stops:
                self._hand_over()
                return taken, position, stops[status]
            if status == kernels.GROW:
                self._tokens.grow(int(self._rows.size[2]))
            elif status == kernels.NEW_CATEGORY:
                self._decide()
            elif self._rows.size[0] == _ROWS:
                self._hand_over()
                self._rows, self._first = _rows(kernels), 0

    def entry(self, text: bytes) -> bool:
        """Take one JSON value; see `Parser.entry`."""
        return self._entries.entry(text)

    def _decide(self) -> None:
        """Say of the category that the scanner met last what becomes of its complete events."""
        kernels, table = self._kernels, self._tokens.table
        code = int(table.size[1])
        begin, end = table.begins[code : code + 2].tolist()
        category = category_of(table.letters[begin:end].tobytes())
        if is_skipped(category, python=self._python):
            table.fates[code] = kernels.SKIP
        else:
            table.fates[code] = kernels.DEVICE if category in DEVICE_CATEGORIES else kernels.HOST

    def _settle(self, text: bytes) -> None:
        """Numbers that are not plain, from what was written."""
        kernels, rows = self._kernels, self._rows
        fixes = rows.fixes[: rows.size[1]]
        rows.size[1] = 0
        for column, to in ((kernels.START, rows.start), (kernels.DURATION, rows.duration)):
            here = fixes[fixes[:, 1] == column]
            to[here[:, 0]] = nanoseconds([text[begin:end] for begin, end in here[:, 2:].tolist()])
        for row, column, begin, end in fixes[fixes[:, 1] >= 0].tolist():
            rows.integers[column, row] = self._integer(text[begin:end])

    def _integer(self, token: bytes) -> int:
        if token not in self._integers:
            self._integers[token] = integer_of(value_of(token)[0])
        return self._integers[token]

    def _hand_over(self) -> None:
        """Make a batch of the rows since the last one, and counts of what the scanner counted."""
        rows, new = self._rows, slice(self._first, int(self._rows.size[0]))
        if new.stop > new.start:
            batch = Batch(rows.kind[new], rows.start[new], rows.duration[new], rows.integers[:, new], rows.texts[:, new])
            self.columns.batches.append(batch)
        self._first = new.stop
        table, counts = self._tokens.table, self.columns.counts
        for code in np.flatnonzero(table.phases).tolist():
            counts[f"ph {chr(code)}"] += int(table.phases[code])
        table.phases[:] = 0
        for code in np.flatnonzero(table.counts).tolist():
            begin, end = table.begins[code : code + 2].tolist()
            counts[category_of(table.letters[begin:end].tobytes())] += int(table.counts[code])
        table.counts[:] = 0


def _rows(kernels: Any) -> Rows:
    return Rows(
        kind=np.empty(_ROWS, dtype=np.int8),
        start=np.empty(_ROWS, dtype=np.int64),
        duration=np.empty(_ROWS, dtype=np.int64),
        integers=np.empty((len(INTEGERS), _ROWS), dtype=np.int64),
        texts=np.empty((len(HEAD) + len(TEXTS), _ROWS), dtype=np.int32),
        fixes=np.empty((_FIXES, kernels.FIX_FIELDS), dtype=np.int64),
        size=np.zeros(3, dtype=np.int64),
    )


def _layout(kernels: Any) -> Layout:
    keys = [*kernels.HEAD_KEYS, *(key.encode() for names in (*INTEGERS.values(), *TEXTS.values()) for key in names)]
    numbers = {key: number for number, key in enumerate(keys)}
    places = np.full(_PLACES, -1, dtype=np.int64)
    for key, number in numbers.items():
        place = kernels.key_place.py_func(len(key), key[0], key[-1])
        while places[place] >= 0:
            place += 1
        places[place] = number

    def keys_of(columns: dict[str, tuple[str, ...]]) -> Int64s:
        table = np.full((len(columns), max(map(len, columns.values()))), -1, dtype=np.int64)
        for row, names in zip(table, columns.values(), strict=True):
            row[: len(names)] = [numbers[name.encode()] for name in names]
        return table

    integer_keys, text_keys = keys_of(INTEGERS), keys_of(TEXTS)
    return Layout(
        keys=np.frombuffer(b"".join(keys), dtype=np.uint8),
        key_begins=np.cumsum([0, *map(len, keys)]),
        places=places,
        integer_keys=integer_keys.ravel(),
        text_keys=text_keys.ravel(),
        has_integer=np.array([column in integers for integers, _ in COLUMNS_OF.values() for column in INTEGERS], dtype=np.int64),
        has_text=np.array([column in texts for _, texts in COLUMNS_OF.values() for column in TEXTS], dtype=np.int64),
        memory_name=np.frombuffer(MEMORY_NAME, dtype=np.uint8),
        key_count=len(keys),
        integer_columns=len(INTEGERS),
        text_columns=len(TEXTS),
        keys_of_integer=integer_keys.shape[1],
        keys_of_text=text_keys.shape[1],
        first_text_key=len(kernels.HEAD_KEYS) + sum(map(len, INTEGERS.values())),
        collective_key=numbers[b"Collective name"],
        memory_name_length=len(MEMORY_NAME),
        rows=_ROWS,
        fixes=_FIXES,
    )


@functools.cache
def _compiled() -> Any:
    """The compiled part; compiled once per machine, which takes some seconds and is said."""
    if not available():
        message = "the scanner needs numba, which is not installed: pip install 'perfnb[fast]'"
        raise ScannerError(message)
    try:
        from perfnb.read.kineto import scanner_kernels as kernels  # noqa: PLC0415 - numba is an extra, and slow to import

        _check(kernels)
    except Exception as error:
        message = f"numba cannot compile the scanner here, or cannot keep it: {type(error).__name__}: {error}"
        raise ScannerError(message) from error
    return kernels


def _check(kernels: Any) -> None:
    """Have the compiled part at hand, and see that it reads an entry."""
    import numba  # noqa: PLC0415 - as above

    if numba.config.DISABLE_JIT:
        message = "NUMBA_DISABLE_JIT is set"
        raise ScannerError(message)
    if not _is_kept(Path(kernels.scan.stats.cache_path)):
        sys.stderr.write(
            f"perfnb: compiling the trace scanner once (about {_COMPILING_S} s) ...\n"
        )  # no warning: nothing is wrong
    table = kernels.TokenTable()
    table.code(b"null")
    kinds: tuple[Any, ...] = (Found, Layout, Rows)
    found, layout, rows = (kind(*[0] * len(kind._fields)) for kind in kinds)  # nothing is read or written for an empty list
    kernels.scan(kernels.address_of(b"]"), 1, 0, found, layout, table.addresses, rows)


def _is_kept(folder: Path) -> bool:
    """Whether what was compiled is newer than its sources; what is older is removed, for numba looks at one source only."""
    kept = [*folder.glob("scanner_kernels.*.nbi"), *folder.glob("scanner_tokens.*.nbi")]
    sources = [Path(__file__).with_name(f"{name}.py") for name in _SOURCES]
    newest = max(source.stat().st_mtime for source in sources)
    fresh = [file for file in kept if file.stat().st_mtime >= newest]
    for file in set(kept) - set(fresh):
        file.unlink(missing_ok=True)
    return any(".scan-" in file.name for file in fresh)
