"""Numbers in plain digits, compiled by numba; what else may be meant as a number is left to Python.

Only what `scanner` loads imports it.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from perfnb.read.kineto.scanner_grammar import BACKSLASH, DELETE, LOWER_N, MINUS, NINE, POINT, QUOTE, ZERO, is_digit
from perfnb.read.kineto.scanner_memory import byte
from perfnb.read.kineto.stamps import MISSING

_MISSING = int(MISSING)
_SAFE_DIGITS: Final = 15  # as in stamps.py: a 16th digit may stand first if it is below 9
_DECIMALS: Final = 3
_WIDEST_STAMP: Final = 20  # characters
_PLAIN_DIGITS: Final = 18  # below 2**63 whatever they are
_WIDEST_NUMBER: Final = 40  # characters; far below where a parser may call a number too large


@njit
def read_stamp(text: Any, i: int, end: int) -> tuple[int, bool]:
    """Nanoseconds of microseconds in plain digits; whether they are."""
    if end - i > _WIDEST_STAMP:
        return _MISSING, False
    first, value, whole, decimals = byte(text, i), 0, 0, -1
    for k in range(i, end):
        c = byte(text, k)
        if is_digit(c):
            value = 10 * value + (c - ZERO)
            whole += decimals < 0
            decimals += decimals >= 0
        elif c == POINT and decimals < 0:
            decimals = 0
        else:
            return _MISSING, False
    if decimals > _DECIMALS or whole > _SAFE_DIGITS + (first < NINE):
        return _MISSING, False
    for _ in range(max(decimals, 0), _DECIMALS):
        value *= 10
    return value, True


@njit
def read_integer(text: Any, i: int, end: int) -> tuple[int, bool]:
    """Whole number in plain digits; whether it is one."""
    is_negative = byte(text, i) == MINUS
    i += is_negative
    if end - i > _PLAIN_DIGITS:
        return _MISSING, False
    value = 0
    for k in range(i, end):
        c = byte(text, k)
        if not is_digit(c):
            return _MISSING, c == LOWER_N
        value = 10 * value + (c - ZERO)
    return -value if is_negative else value, True


@njit
def is_plain_integer(text: Any, i: int, end: int) -> bool:
    """Whether a value is one of whose whole number there is no doubt: digits, a short decimal fraction, ASCII text, null."""
    c = byte(text, i)
    if c == QUOTE:
        for k in range(i, end):
            if byte(text, k) >= DELETE or byte(text, k) == BACKSLASH:
                return False
        return True
    if c != MINUS and not is_digit(c):
        return c == LOWER_N
    for k in range(i, end):
        if byte(text, k) > NINE:
            return False
    return end - i <= _WIDEST_NUMBER
