"""The compiled part of the event scanner: strict JSON by position, distinct texts, rows. Only `scanner` imports it: it imports numba.

All of it is one file because numba's cache notices changes of the file of the function it keeps, not of what that one calls.

A function that reads returns the position after what it read, or `~position` (which is negative) of the byte that it did not take.
The text ends in a zero byte, as every `bytes` of CPython does, which nothing takes: only jumps over several bytes need its length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from perfnb.read.kineto.stamps import MISSING

MORE, END, ODD, NEW_CATEGORY, GROW, FULL = range(6)
HOST, DEVICE, SKIP, UNKNOWN = 0, 1, 2, -1
MEMORY_GROUP = 4
PH, CAT, NAME, PID, TID, TS, DUR, ARGS = range(8)
HEAD_KEYS = 8
START, DURATION = -2, -1  # columns of what has to be settled in Python, beside those of `INTEGERS`
FIX_FIELDS = 4
MOST_TOKENS = 24  # of one entry

_MISSING = int(MISSING)
_DEEPEST = 60
_WIDTH = 16
_SAFE_DIGITS, _DECIMALS, _WIDEST_STAMP = 15, 3, 20  # see stamps.py
_PLAIN_DIGITS, _WIDEST_NUMBER = 18, 40
_QUOTE, _BACKSLASH, _SLASH, _COMMA, _COLON, _MINUS, _PLUS, _POINT, _ZERO, _SEVEN, _NINE = b'"\\/,:-+.079'
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST, _SPACE, _TAB, _LINE, _RETURN, _DELETE = b"{}[] \t\n\r\x7f"
_A, _B, _C, _D, _E, _F, _N, _P, _R, _T, _U = b"abcdefnprtu"
_UPPER_A, _UPPER_D, _UPPER_E, _UPPER_F, _UPPER_X = b"ADEFX"
_TRUE, _FALSE, _NULL, _MEMORY_NAME = (np.frombuffer(each, np.uint8) for each in (b"true", b"false", b"null", b'"[memory]"'))
_HASH_START, _HASH_FACTOR, _HASH_SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93), np.uint64(32)


def clear_bytes(text: Any, i: int) -> int:
    """How many of the next 16 bytes stand before a quote, a backslash or a control character."""
    for k in range(_WIDTH):
        if text[i + k] < _SPACE or text[i + k] == _QUOTE or text[i + k] == _BACKSLASH:
            return k
    return _WIDTH


def word(text: Any, i: int) -> Any:
    """The next eight bytes as one number."""
    return np.frombuffer(text[i : i + 8].tobytes(), dtype=np.uint64)[0]


def byte(text: Any, i: int) -> Any:
    """A byte of the text; the zero byte after it too."""
    return text[i]


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, kind: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), kind.as_pointer())


@intrinsic
def _clear_bytes(typing: Any, text: Any, i: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), _WIDTH)
        read = builder.load(_pointer(context, builder, signature, arguments, vector), align=1)

        def all_of(value: int) -> Any:
            return ir.Constant(vector, [value] * _WIDTH)

        found = builder.icmp_unsigned("<", read, all_of(_SPACE))
        for value in (_QUOTE, _BACKSLASH):
            found = builder.or_(found, builder.icmp_unsigned("==", read, all_of(value)))
        bits = builder.zext(builder.bitcast(found, ir.IntType(_WIDTH)), ir.IntType(64))
        bits = builder.or_(bits, ir.Constant(ir.IntType(64), 1 << _WIDTH))
        return builder.cttz(bits, ir.Constant(ir.IntType(1), 1))

    return types.int64(text, types.int64), generate


@intrinsic
def _word(typing: Any, text: Any, i: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments, ir.IntType(64)), align=1)

    return types.uint64(text, types.int64), generate


@intrinsic
def _byte(typing: Any, text: Any, i: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments, ir.IntType(8)))

    return types.uint8(text, types.int64), generate


overload(clear_bytes)(lambda text, i: lambda text, i: _clear_bytes(text, i))
overload(word)(lambda text, i: lambda text, i: _word(text, i))
overload(byte)(lambda text, i: lambda text, i: _byte(text, i))


@njit
def _white(text: Any, i: int) -> int:
    c = byte(text, i)
    while c <= _SPACE and (c == _SPACE or c == _LINE or c == _RETURN or c == _TAB):
        i += 1
        c = byte(text, i)
    return i


@njit
def _is_digit(c: int) -> bool:
    return c >= _ZERO and c <= _NINE


@njit
def _is_hexadecimal(c: int) -> bool:
    return _is_digit(c) or (c >= _A and c <= _F) or (c >= _UPPER_A and c <= _UPPER_F)


@njit
def _special(text: Any, i: int, n: int) -> int:
    """Position of the next quote, backslash or control character, `n` where there is none."""
    while i + _WIDTH <= n:
        step = clear_bytes(text, i)
        i += step
        if step < _WIDTH:
            return i
    c = byte(text, i)
    while c >= _SPACE and c != _QUOTE and c != _BACKSLASH:
        i += 1
        c = byte(text, i)
    return i


@njit
def _escape(text: Any, i: int) -> int:
    """After an escape that is valid and no half of a surrogate pair."""
    c = byte(text, i + 1)
    if c == _U:
        for k in range(2, 6):
            if not _is_hexadecimal(byte(text, i + k)):
                return ~(i + k)
        if (byte(text, i + 2) == _D or byte(text, i + 2) == _UPPER_D) and byte(text, i + 3) > _SEVEN:
            return ~i
        return i + 6
    if c == _QUOTE or c == _BACKSLASH or c == _SLASH or c == _B or c == _F or c == _N or c == _R or c == _T:
        return i + 2
    return ~(i + 1)


@njit
def _string(text: Any, i: int, n: int) -> int:
    """After a string whose opening quote stands before `i`."""
    while True:
        i = _special(text, i, n)
        c = byte(text, i)
        if c == _QUOTE:
            return i + 1
        if c != _BACKSLASH:
            return ~i
        i = _escape(text, i)
        if i < 0:
            return i


@njit
def _key(text: Any, i: int, n: int) -> int:
    """After a key without escapes whose opening quote stands at `i`."""
    if byte(text, i) != _QUOTE:
        return ~i
    i = _special(text, i + 1, n)
    return i + 1 if byte(text, i) == _QUOTE else ~i


@njit
def _after_colon(text: Any, i: int) -> int:
    """Where the value of a key begins that ends before `i`."""
    i = _white(text, i)
    return _white(text, i + 1) if byte(text, i) == _COLON else ~i


@njit
def _digits(text: Any, i: int) -> int:
    if not _is_digit(byte(text, i)):
        return ~i
    while _is_digit(byte(text, i)):
        i += 1
    return i


@njit
def _number(text: Any, i: int) -> int:
    if byte(text, i) == _MINUS:
        i += 1
    i = i + 1 if byte(text, i) == _ZERO else _digits(text, i)
    if i >= 0 and byte(text, i) == _POINT:
        i = _digits(text, i + 1)
    if i >= 0 and (byte(text, i) == _E or byte(text, i) == _UPPER_E):
        i += 1
        i = _digits(text, i + 1 if byte(text, i) == _PLUS or byte(text, i) == _MINUS else i)
    return i


@njit
def _literal(text: Any, i: int) -> int:
    c = byte(text, i)
    letters = _TRUE if c == _T else _FALSE if c == _F else _NULL
    for k in range(len(letters)):
        if byte(text, i + k) != letters[k]:
            return ~(i + k)
    return i + len(letters)


@njit
def _scalar(text: Any, i: int, n: int) -> int:
    c = byte(text, i)
    if c == _QUOTE:
        return _string(text, i + 1, n)
    if c == _MINUS or _is_digit(c):
        return _number(text, i)
    return _literal(text, i)


@njit
def _value(text: Any, i: int, n: int) -> int:
    """After a value of any kind; lists and objects not deeper than `_DEEPEST`."""
    kinds, depth = 0, 0  # a bit per level: 1 for an object
    while True:
        c = byte(text, i)
        if c == _OPEN or c == _OPEN_LIST:
            if depth == _DEEPEST:
                return ~i
            depth += 1
            kinds = (kinds << 1) | (c == _OPEN)
            i = _white(text, i + 1)
            is_value_next = byte(text, i) != (_CLOSE if kinds & 1 else _CLOSE_LIST)
        else:
            i = _scalar(text, i, n)
            is_value_next = False
        while i >= 0 and not is_value_next:
            if depth == 0:
                return i
            i = _white(text, i)
            c = byte(text, i)
            if c == (_CLOSE if kinds & 1 else _CLOSE_LIST):
                depth -= 1
                kinds >>= 1
                i += 1
            elif c == _COMMA:
                i = _white(text, i + 1)
                is_value_next = True
            else:
                return ~i
        if i >= 0 and kinds & 1:
            i = _string(text, i + 1, n) if byte(text, i) == _QUOTE else ~i
            if i >= 0:
                i = _after_colon(text, i)
        if i < 0:
            return i


@njit
def _head_key(text: Any, i: int, length: int) -> int:
    """Number of a key of an event (`HEAD_KEYS`), -1 for another one."""
    for key in range(HEAD_KEYS):
        letters = _HEAD[key]
        if letters[0] == length and letters[1] == byte(text, i) and letters[2] == byte(text, i + 1):
            if length == 2 or (letters[3] == byte(text, i + 2) and (length == 3 or letters[4] == byte(text, i + 3))):
                return key
    return -1


@njit
def _argument_key(text: Any, i: int, length: int, layout: Any) -> int:
    """Number of a key of the arguments, -1 for one that no column asks for."""
    if length == 0:
        return -1
    place = (length + 4 * int(byte(text, i)) + int(byte(text, i + length - 1))) & (len(layout.places) - 1)
    while layout.places[place] >= 0:
        key = layout.places[place]
        begin = layout.key_begins[key]
        if layout.key_begins[key + 1] - begin == length and _is_same(text, i, layout.keys, begin, length):
            return key
        place = (place + 1) & (len(layout.places) - 1)
    return -1
