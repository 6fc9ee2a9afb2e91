"""Distinct texts in a hash table of arrays that numba fills. Only what `scanner` loads imports it: it imports numba."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perfnb.read.kineto.columns import ABSENT, Int32s, Int64s
from perfnb.read.kineto.scanner_grammar import is_same
from perfnb.read.kineto.scanner_memory import WORD, byte, number, put_byte, put_number, word

MOST_NEW: Final = 32  # texts of one entry
PHASES: Final = 128  # the phase of an event is one ASCII character
UNKNOWN: Final = -1

_FIRST_TEXTS: Final = 1 << 10
_FIRST_BYTES: Final = 1 << 16
_SLOTS_PER_TEXT: Final = 2
_HASH_START, _HASH_FACTOR, _HASH_SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93), np.uint64(32)


class Table(NamedTuple):
    """Texts by number: slots of the hash table, hash, where each begins in `letters`, its fate as a category, how often skipped.

    `size` holds how many texts there are and the number of the category that was met last, `phases` how many entries of each
    phase became no row.
    """

    slots: Int64s
    hashes: Int64s
    begins: Int64s
    letters: NDArray[np.uint8]
    fates: Int64s
    counts: Int64s
    phases: Int64s
    size: Int64s
    slot_count: int
    text_count: int
    letter_count: int


class TokenTable:
    """Tokens in a table of arrays.

    Attributes
    ----------
    table
        The arrays; new ones after `grow`.
    addresses
        The same as compiled code takes it.
    """

    def __init__(self) -> None:
        self.table = _made(_FIRST_TEXTS, _FIRST_BYTES)
        self.addresses = addresses(self.table)

    def code(self, token: bytes) -> int:
        """Number of a JSON value; a new one gets the next number, an empty one is `ABSENT`."""
        if not token:
            return ABSENT
        self.grow(len(token))
        return int(code_of(address_of(token), len(token), self.addresses))

    def codes(self, values: Sequence[bytes]) -> Int32s:
        """Numbers of many values."""
        return np.array(list(map(self.code, values)), dtype=np.int32)

    def tokens(self) -> Sequence[bytes]:
        """Values by number."""
        letters = self.table.letters.tobytes()
        begins = self.table.begins[: self.table.size[0] + 1].tolist()
        return [letters[begin:end] for begin, end in pairwise(begins)]

    def grow(self, size: int) -> None:
        """Make room for another entry of that many bytes, where there is none."""
        old, count = self.table, int(self.table.size[0])
        texts, letters = len(old.hashes), len(old.letters)
        while texts < count + MOST_NEW:
            texts *= 2
        while letters < old.begins[count] + size:
            letters *= 2
        if texts == len(old.hashes) and letters == len(old.letters):
            return
        new = _made(texts, letters)
        for to, was in zip(new[1:], old[1:], strict=True):
            if isinstance(to, np.ndarray) and isinstance(was, np.ndarray):
                to[: len(was)] = was
        _refill(new)
        self.table, self.addresses = new, addresses(new)


def _refill(table: Table) -> None:
    """Fill the slots of a table that has grown."""
    for code, value in enumerate(table.hashes[: table.size[0]].tolist()):
        place = value & (table.slot_count - 1)
        while table.slots[place] >= 0:
            place = (place + 1) & (table.slot_count - 1)
        table.slots[place] = code


def address_of(text: bytes) -> Any:
    """The address of a text, for as long as something else holds the text."""
    return np.frombuffer(text, dtype=np.uint8).ctypes.data


def addresses(arrays: Any) -> Any:
    """A tuple of the addresses of the arrays of a named tuple; what is no array stays as it is."""
    return type(arrays)(*(each.ctypes.data if isinstance(each, np.ndarray) else each for each in arrays))


def _made(texts: int, letters: int) -> Table:
    return Table(
        slots=np.full(_SLOTS_PER_TEXT * texts, -1, dtype=np.int64),
        hashes=np.zeros(texts, dtype=np.int64),
        begins=np.zeros(texts + 1, dtype=np.int64),
        letters=np.empty(letters, dtype=np.uint8),
        fates=np.full(texts, UNKNOWN, dtype=np.int64),
        counts=np.zeros(texts, dtype=np.int64),
        phases=np.zeros(PHASES, dtype=np.int64),
        size=np.zeros(2, dtype=np.int64),
        slot_count=_SLOTS_PER_TEXT * texts,
        text_count=texts,
        letter_count=letters,
    )


@njit
def _hash(text: Any, i: int, length: int) -> Any:
    value = np.uint64(length) * _HASH_FACTOR + _HASH_START
    while length >= WORD:
        value = (value ^ word(text, i)) * _HASH_FACTOR
        value ^= value >> _HASH_SHIFT
        i, length = i + WORD, length - WORD
    for step in range(length):
        value = (value ^ np.uint64(byte(text, i + step))) * _HASH_FACTOR
    return value ^ (value >> _HASH_SHIFT)


@njit
def intern(text: Any, i: int, length: int, table: Any) -> int:
    """Number of a text; a new one gets the next number. There must be room for it."""
    value: Any = np.int64(_hash(text, i, length))
    place = value & (table.slot_count - 1)
    code = number(table.slots, place)
    while code >= 0:
        begin = number(table.begins, code)
        if number(table.hashes, code) == value and number(table.begins, code + 1) - begin == length:
            if is_same(text, i, table.letters, begin, length):
                return code
        place = (place + 1) & (table.slot_count - 1)
        code = number(table.slots, place)
    code = number(table.size, 0)
    begin = number(table.begins, code)
    for step in range(length):
        put_byte(table.letters, begin + step, byte(text, i + step))
    put_number(table.begins, code + 1, begin + length)
    put_number(table.hashes, code, value)
    put_number(table.slots, place, code)
    put_number(table.size, 0, code + 1)
    return code


@njit(cache=True)
def code_of(text: Any, length: int, table: Any) -> int:
    """Number of a text in a table that has room for it."""
    return intern(text, 0, length, table)
