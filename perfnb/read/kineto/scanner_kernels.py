"""Entries of an event list -> rows, compiled by numba. Only what `scanner` loads imports it: it imports numba.

`found`, `layout`, `table` and `rows` are the named tuples of `scanner` and `scanner_tokens`, as addresses.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from perfnb.read.kineto.scanner_grammar import (
    CLOSE,
    CLOSE_LIST,
    COMMA,
    DELETE,
    OPEN,
    QUOTE,
    UPPER_X,
    after_colon,
    after_key,
    after_value,
    is_same,
    white,
)
from perfnb.read.kineto.scanner_memory import byte, number, put_byte, put_code, put_number
from perfnb.read.kineto.scanner_numbers import is_plain_integer, read_integer, read_stamp
from perfnb.read.kineto.scanner_tokens import MOST_NEW, UNKNOWN, TokenTable, address_of, addresses, intern
from perfnb.read.kineto.stamps import MISSING

__all__ = ["TokenTable", "address_of", "addresses", "scan"]

MORE, END, ODD, NEW_CATEGORY, GROW, FULL = range(6)
HOST, DEVICE, SKIP = 0, 1, 2
MEMORY_GROUP: Final = 4
HEAD_KEYS: Final = (b"ph", b"cat", b"name", b"pid", b"tid", b"ts", b"dur", b"args")
PH, CAT, NAME, PID, TID, TS, DUR, ARGS = range(len(HEAD_KEYS))
START, DURATION = -2, -1  # columns of a value that Python has to settle, beside those of `INTEGERS`
FIX_FIELDS: Final = 4  # row, column, where the value begins and ends
MOST_FIXES: Final = 32  # of one entry

_COUNTED, _NEW, _ODD_PHASE = -1, -2, -3  # what an entry is that gets no row
_FIRST_ARGUMENT = len(HEAD_KEYS)
_PHASE_BYTES = 3  # a character in quotes
_MISSING = int(MISSING)


@njit
def key_place(length: int, first: int, last: int) -> int:
    """Where to look first for a key."""
    return (3 * length + 5 * first + 7 * last) & 255


@njit
def _key_number(text: Any, i: int, length: int, layout: Any) -> int:
    """Number of a key in `layout`, -1 for one that nothing asks for."""
    if length == 0:
        return -1
    place = key_place(length, byte(text, i), byte(text, i + length - 1))
    key = number(layout.places, place)
    while key >= 0:
        begin = number(layout.key_begins, key)
        if number(layout.key_begins, key + 1) - begin == length and is_same(text, i, layout.keys, begin, length):
            return key
        place += 1
        key = number(layout.places, place)
    return -1


@njit
def _member(text: Any, i: int, n: int, layout: Any) -> tuple[int, int]:
    """Where the value of a member of an object begins, and the number of its key."""
    begin = i + 1
    i = after_key(text, i, n)
    if i < 0:
        return i, -1
    return after_colon(text, i), _key_number(text, begin, i - 1 - begin, layout)


@njit
def _arguments(text: Any, i: int, n: int, found: Any, layout: Any) -> int:
    """After the object of an event's arguments; where the values that are asked for stand goes to `found`."""
    i = white(text, i + 1)
    if byte(text, i) == CLOSE:
        return i + 1
    while True:
        begin, key = _member(text, i, n, layout)
        if begin < 0:
            return begin
        i = after_value(text, begin, n)
        if i < 0:
            return i
        if key >= _FIRST_ARGUMENT:
            if key < layout.first_text_key and not is_plain_integer(text, begin, i):
                return ~begin
            put_number(found.begins, key, begin)
            put_number(found.ends, key, i)
        i = white(text, i)
        if byte(text, i) == CLOSE:
            return i + 1
        if byte(text, i) != COMMA:
            return ~i
        i = white(text, i + 1)


@njit
def _entry(text: Any, i: int, n: int, found: Any, layout: Any) -> int:
    """After an event; where the values of its keys stand goes to `found` (end 0: absent)."""
    for key in range(layout.key_count):
        put_number(found.ends, key, 0)
    if byte(text, i) != OPEN:
        return ~i
    i = white(text, i + 1)
    if byte(text, i) == CLOSE:
        return i + 1
    while True:
        begin, key = _member(text, i, n, layout)
        if begin < 0:
            return begin
        if key == ARGS and byte(text, begin) == OPEN:
            _forget_arguments(found, layout)
            i = _arguments(text, begin, n, found, layout)
        else:
            i = after_value(text, begin, n)
        if i < 0:
            return i
        if 0 <= key < _FIRST_ARGUMENT:
            if key == ARGS and byte(text, begin) != OPEN:
                _forget_arguments(found, layout)
            put_number(found.begins, key, begin)
            put_number(found.ends, key, i)
        i = white(text, i)
        if byte(text, i) == CLOSE:
            return i + 1
        if byte(text, i) != COMMA:
            return ~i
        i = white(text, i + 1)


@njit
def _forget_arguments(found: Any, layout: Any) -> None:
    if number(found.ends, ARGS):
        for key in range(_FIRST_ARGUMENT, layout.key_count):
            put_number(found.ends, key, 0)


@njit
def _put(array: Any, place: int, column: int, read: tuple[int, bool], key: int, found: Any, rows: Any) -> None:
    """Write a number that was read; where it is not plain, note where it stands for Python to settle."""
    value, is_plain = read
    put_number(array, place, value)
    if not is_plain:
        fix = number(rows.size, 1)
        put_number(rows.fixes, FIX_FIELDS * fix, number(rows.size, 0))
        put_number(rows.fixes, FIX_FIELDS * fix + 1, column)
        put_number(rows.fixes, FIX_FIELDS * fix + 2, number(found.begins, key))
        put_number(rows.fixes, FIX_FIELDS * fix + 3, number(found.ends, key))
        put_number(rows.size, 1, fix + 1)


@njit
def _first_present(keys: Any, column: int, keys_of_one: int, found: Any) -> int:
    """The first key of a column that an event has, -1 where it has none."""
    for k in range(keys_of_one * column, keys_of_one * (column + 1)):
        key = number(keys, k)
        if key >= 0 and number(found.ends, key):
            return key
    return -1


@njit
def _text(text: Any, key: int, found: Any, table: Any) -> int:
    """Number of the value of a key, -1 where it is absent."""
    if key < 0 or number(found.ends, key) == 0:
        return -1
    begin = number(found.begins, key)
    return intern(text, begin, number(found.ends, key) - begin, table)


@njit
def _row(text: Any, group: int, found: Any, layout: Any, table: Any, rows: Any) -> None:
    """Write the row of an entry."""
    row = number(rows.size, 0)
    put_byte(rows.kind, row, group == MEMORY_GROUP)
    for array, key, column in ((rows.start, TS, START), (rows.duration, DUR, DURATION)):
        put_number(array, row, _MISSING)
        if number(found.ends, key):
            read = read_stamp(text, number(found.begins, key), number(found.ends, key))
            _put(array, row, column, read, key, found, rows)
    for column in range(layout.integer_columns):
        place = layout.rows * column + row
        put_number(rows.integers, place, _MISSING)
        if number(layout.has_integer, group * layout.integer_columns + column):
            key = _first_present(layout.integer_keys, column, layout.keys_of_integer, found)
            if key >= 0:
                read = read_integer(text, number(found.begins, key), number(found.ends, key))
                _put(rows.integers, place, column, read, key, found, rows)
    for key in range(CAT, TID + 1):
        put_code(rows.texts, layout.rows * (key - CAT) + row, _text(text, key, found, table))
    for column in range(layout.text_columns):
        code = -1
        if number(layout.has_text, group * layout.text_columns + column):
            code = _text(text, _first_present(layout.text_keys, column, layout.keys_of_text, found), found, table)
        put_code(rows.texts, layout.rows * (TID + 1 - CAT + column) + row, code)
    put_number(rows.size, 0, row + 1)


@njit
def _group(text: Any, found: Any, layout: Any, table: Any) -> int:
    """Group of the row of an entry; `_COUNTED`, `_NEW` or `_ODD_PHASE` where it gets none (yet)."""
    begin = number(found.begins, PH)
    phase = byte(text, begin + 1)
    if number(found.ends, PH) - begin != _PHASE_BYTES or byte(text, begin) != QUOTE or phase >= DELETE:
        return _ODD_PHASE
    if phase == UPPER_X:
        fate = HOST
        if number(found.ends, CAT):
            code = _text(text, CAT, found, table)
            put_number(table.size, 1, code)
            fate = number(table.fates, code)
            if fate == UNKNOWN:
                return _NEW
            if fate == SKIP:
                put_number(table.counts, code, number(table.counts, code) + 1)
                return _COUNTED
        return 2 * fate + (number(found.ends, layout.collective_key) > 0)
    begin = number(found.begins, NAME)
    if number(found.ends, NAME) - begin == layout.memory_name_length and is_same(
        text, begin, layout.memory_name, 0, layout.memory_name_length
    ):
        return MEMORY_GROUP
    put_number(table.phases, phase, number(table.phases, phase) + 1)
    return _COUNTED


@njit(cache=True, nogil=True)
def scan(text: Any, n: int, start: int, found: Any, layout: Any, table: Any, rows: Any) -> tuple[int, int, int]:
    """Take entries from a position on: how many, the position after the last one, and why it stopped there."""
    position, taken = start, 0
    while True:
        i = white(text, position)
        if byte(text, i) == CLOSE_LIST:
            return taken, i + 1, END
        if byte(text, i) == COMMA:
            i = white(text, i + 1)
        i = _entry(text, i, n, found, layout)
        if i >= 0:
            after = white(text, i)  # what follows must be part of the list too, or where the entry ends is not certain
            if byte(text, after) != COMMA and byte(text, after) != CLOSE_LIST:
                i = ~after
        if i < 0:
            return taken, position, MORE if ~i >= n else ODD
        count = number(table.size, 0)
        if count + MOST_NEW > table.text_count or number(table.begins, count) + i - position > table.letter_count:
            put_number(rows.size, 2, i - position)
            return taken, position, GROW
        if number(rows.size, 0) == layout.rows or number(rows.size, 1) + MOST_FIXES > layout.fixes:
            return taken, position, FULL
        group = _group(text, found, layout, table)
        if group == _NEW:
            return taken, position, NEW_CATEGORY
        if group == _ODD_PHASE:
            return taken, position, ODD
        if group != _COUNTED:
            _row(text, group, found, layout, table, rows)
        position, taken = i, taken + 1
