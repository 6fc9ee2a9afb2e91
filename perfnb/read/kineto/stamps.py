"""Time stamps as text -> whole nanoseconds, exactly, whatever way they are written."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = np.iinfo(np.int64).min
"""Stands for a stamp that is absent or cannot be read."""

_DECIMALS: Final = 3  # of a microsecond: a nanosecond
_WIDEST: Final = 22  # sign, 16 digits of epoch microseconds, point, decimals and a little room: longer goes the slow way
_SAFE_DIGITS: Final = 15  # 10**15 us = 10**18 ns stays below 2**63; a 16th digit may stand first if it is below 9
_LONGEST_STAMP: Final = 1000  # characters: no clock writes more
_LARGEST_EXPONENT: Final = 18  # 10**18 us is past 2**63 ns
_EXACT: Final = Context(prec=2 * _LONGEST_STAMP)
_NOT_A_NUMBER: Final = Decimal("NaN")
_LONGEST_NUMBER: Final = 40  # characters: longer than any number below 2**63, in whatever base
_ZERO, _NINE, _POINT, _MINUS, _END = (np.uint8(ord(character)) for character in "09.-\0")


def nanoseconds(stamps: Sequence[bytes]) -> NDArray[np.int64]:
    """Microseconds written as JSON text, as whole nanoseconds; `MISSING` where there is no number.

    Digits beyond the nanosecond round to the nearest (half to even).

    Examples
    --------
    >>> nanoseconds([b"1712195495520883.001", b"25", b'"-0.5"', b"1.5e3", b"null"])[:4].tolist()
    [1712195495520883001, 25000, -500, 1500000]
    """
    if not stamps:
        return np.empty(0, dtype=np.int64)
    wide = [row for row, stamp in enumerate(stamps) if len(stamp) > _WIDEST]  # one of them would make all rows as wide
    if wide:
        value = nanoseconds([b"" if len(stamp) > _WIDEST else stamp for stamp in stamps])
        value[wide] = [_slowly(stamps[row]) for row in wide]
        return value
    text = np.array(stamps, dtype=np.bytes_)
    width = text.dtype.itemsize
    characters = text.view(np.uint8).reshape(len(stamps), width)
    value = np.zeros(len(stamps), dtype=np.int64)
    decimals = np.zeros(len(stamps), dtype=np.int64)
    whole_digits = np.zeros(len(stamps), dtype=np.int64)
    after_point = np.zeros(len(stamps), dtype=bool)
    odd = characters[:, 0] == _END
    negative = characters[:, 0] == _MINUS
    for column in range(width):
        character = characters[:, column]
        digit = (character >= _ZERO) & (character <= _NINE)
        value = np.where(digit, value * 10 + (character - _ZERO), value)
        decimals += digit & after_point
        whole_digits += digit & ~after_point
        point = character == _POINT
        odd |= ~(digit | point | (character == _END) | (negative if column == 0 else False)) | (point & after_point)
        after_point |= point
    odd |= (decimals > _DECIMALS) | (whole_digits > _SAFE_DIGITS + ((characters[:, 0] < _NINE) & ~negative))
    value *= 10 ** (_DECIMALS - np.minimum(decimals, _DECIMALS))
    value[negative] *= -1
    absent = characters[:, 0] == _END
    value[absent] = MISSING
    for row in np.flatnonzero(odd & ~absent).tolist():
        value[row] = _slowly(stamps[row])
    return value


def _slowly(stamp: bytes) -> int:
    try:
        exact = Decimal(stamp.decode("ascii").strip('" ')) if len(stamp) <= _LONGEST_STAMP else _NOT_A_NUMBER
        if not exact.is_finite() or exact.adjusted() > _LARGEST_EXPONENT:
            return int(MISSING)
        whole = int(exact.scaleb(_DECIMALS, _EXACT).to_integral_value(ROUND_HALF_EVEN, _EXACT))
    except (InvalidOperation, UnicodeDecodeError, ValueError, OverflowError):
        return int(MISSING)
    return whole if abs(whole) < -MISSING else int(MISSING)


def whole_number(value: int | str) -> int:
    """Number below 2**63, also written as text ("0x0" is how ROCm writes its default stream); `MISSING` where it is none.

    Examples
    --------
    >>> whole_number("0x10"), whole_number("7"), whole_number(2**64) == MISSING, whole_number("stream 7") == MISSING
    (16, 7, True, True)
    """
    if type(value) is str:
        try:
            value = int(value, 0) if len(value) <= _LONGEST_NUMBER else int(MISSING)
        except ValueError:
            return int(MISSING)
    return int(value) if abs(int(value)) < -MISSING else int(MISSING)
