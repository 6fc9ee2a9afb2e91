"""JSON by position: where each value of a text ends, in the strict grammar of RFC 8259, compiled by numba.

Only what `scanner` loads imports it. A function that reads returns the position after what it read, or `~position` (negative) of
the byte that it did not take. The text ends in a zero byte, as every `bytes` of CPython does, which nothing takes: only jumps
over several bytes need the length of the text.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from perfnb.read.kineto.scanner_memory import WIDTH, WORD, byte, clear_bytes, word

QUOTE, COMMA, MINUS, POINT, ZERO, NINE, BACKSLASH = b'",-.09\\'
OPEN, CLOSE, CLOSE_LIST = b"{}]"
LOWER_N, UPPER_X, DELETE = b"nX\x7f"

_DEEPEST = 60  # levels; a choice: traces have 3
_OPEN_LIST, _COLON, _PLUS, _SLASH, _SEVEN, _SPACE, _TAB, _LINE, _RETURN = b"[:+/7 \t\n\r"
_A, _B, _D, _E, _F, _L, _R, _S, _T, _U = b"abdeflrstu"
_UPPER_A, _UPPER_D, _UPPER_E, _UPPER_F = b"ADEF"


@njit
def white(text: Any, i: int) -> int:
    """After white space."""
    c = byte(text, i)
    while c <= _SPACE and (c == _SPACE or c == _LINE or c == _RETURN or c == _TAB):
        i += 1
        c = byte(text, i)
    return i


@njit
def is_digit(c: int) -> bool:
    """Whether a byte is a decimal digit."""
    return c >= ZERO and c <= NINE


@njit
def _is_hexadecimal(c: int) -> bool:
    return is_digit(c) or (c >= _A and c <= _F) or (c >= _UPPER_A and c <= _UPPER_F)


@njit
def _special(text: Any, i: int, n: int) -> int:
    """Position of the next quote, backslash or control character, `n` where there is none."""
    while i + WIDTH <= n:
        step = clear_bytes(text, i)
        i += step
        if step < WIDTH:
            return i
    c = byte(text, i)
    while c >= _SPACE and c != QUOTE and c != BACKSLASH:
        i += 1
        c = byte(text, i)
    return i


@njit
def _after_escape(text: Any, i: int) -> int:
    """After an escape that is valid and no half of a surrogate pair."""
    c = byte(text, i + 1)
    if c == _U:
        for k in range(2, 6):
            if not _is_hexadecimal(byte(text, i + k)):
                return ~(i + k)
        if (byte(text, i + 2) == _D or byte(text, i + 2) == _UPPER_D) and byte(text, i + 3) > _SEVEN:
            return ~i
        return i + 6
    if c == QUOTE or c == BACKSLASH or c == _SLASH or c == _B or c == _F or c == LOWER_N or c == _R or c == _T:
        return i + 2
    return ~(i + 1)


@njit
def after_string(text: Any, i: int, n: int) -> int:
    """After a string whose opening quote stands before `i`."""
    while True:
        i = _special(text, i, n)
        c = byte(text, i)
        if c == QUOTE:
            return i + 1
        if c != BACKSLASH:
            return ~i
        i = _after_escape(text, i)
        if i < 0:
            return i


@njit
def after_key(text: Any, i: int, n: int) -> int:
    """After a key without escapes whose opening quote stands at `i`."""
    if byte(text, i) != QUOTE:
        return ~i
    i = _special(text, i + 1, n)
    return i + 1 if byte(text, i) == QUOTE else ~i


@njit
def after_colon(text: Any, i: int) -> int:
    """Where the value of a key begins that ends before `i`."""
    i = white(text, i)
    return white(text, i + 1) if byte(text, i) == _COLON else ~i


@njit
def _after_digits(text: Any, i: int) -> int:
    if not is_digit(byte(text, i)):
        return ~i
    while is_digit(byte(text, i)):
        i += 1
    return i


@njit
def _after_number(text: Any, i: int) -> int:
    if byte(text, i) == MINUS:
        i += 1
    i = i + 1 if byte(text, i) == ZERO else _after_digits(text, i)
    if i >= 0 and byte(text, i) == POINT:
        i = _after_digits(text, i + 1)
    if i >= 0 and (byte(text, i) == _E or byte(text, i) == _UPPER_E):
        i += 1
        i = _after_digits(text, i + 1 if byte(text, i) == _PLUS or byte(text, i) == MINUS else i)
    return i


@njit
def _after_letters(text: Any, i: int, first: int, second: int, third: int) -> int:
    if byte(text, i) != first:
        return ~i
    if byte(text, i + 1) != second:
        return ~(i + 1)
    return i + 3 if byte(text, i + 2) == third else ~(i + 2)


@njit
def _after_literal(text: Any, i: int) -> int:
    c = byte(text, i)
    if c == LOWER_N:
        return _after_letters(text, i + 1, _U, _L, _L)
    if c == _T:
        return _after_letters(text, i + 1, _R, _U, _E)
    if c != _F:
        return ~i
    return _after_letters(text, i + 2, _L, _S, _E) if byte(text, i + 1) == _A else ~(i + 1)


@njit
def _after_scalar(text: Any, i: int, n: int) -> int:
    c = byte(text, i)
    if c == QUOTE:
        return after_string(text, i + 1, n)
    if c == MINUS or is_digit(c):
        return _after_number(text, i)
    return _after_literal(text, i)


@njit
def after_value(text: Any, i: int, n: int) -> int:
    """After a value of any kind; lists and objects not deeper than `_DEEPEST`."""
    kinds, depth = 0, 0  # a bit per level: 1 for an object
    while True:
        c = byte(text, i)
        if c == OPEN or c == _OPEN_LIST:
            if depth == _DEEPEST:
                return ~i
            depth += 1
            kinds = (kinds << 1) | (c == OPEN)
            i = white(text, i + 1)
            is_value_next = byte(text, i) != (CLOSE if kinds & 1 else CLOSE_LIST)
        else:
            i = _after_scalar(text, i, n)
            is_value_next = False
        while i >= 0 and not is_value_next:
            if depth == 0:
                return i
            i = white(text, i)
            c = byte(text, i)
            if c == (CLOSE if kinds & 1 else CLOSE_LIST):
                depth -= 1
                kinds >>= 1
                i += 1
            elif c == COMMA:
                i = white(text, i + 1)
                is_value_next = True
            else:
                return ~i
        if i >= 0 and kinds & 1:
            i = after_string(text, i + 1, n) if byte(text, i) == QUOTE else ~i
            if i >= 0:
                i = after_colon(text, i)
        if i < 0:
            return i


@njit
def is_same(text: Any, i: int, other: Any, k: int, length: int) -> bool:
    """Whether two stretches hold the same bytes."""
    while length >= WORD:
        if word(text, i) != word(other, k):
            return False
        i, k, length = i + WORD, k + WORD, length - WORD
    for step in range(length):
        if byte(text, i + step) != byte(other, k + step):
            return False
    return True
