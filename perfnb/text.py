"""The one formatter: hostile names made safe to show, and times, bytes, shares and speed-ups as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, Final

from perfnb.safe_text import NAME_LIMIT, clean, code, html, markdown, name

__all__ = [
    "NAME_LIMIT",
    "NOTHING",
    "byte_size",
    "clean",
    "code",
    "count",
    "duration",
    "duration_change",
    "duration_estimate",
    "duration_range",
    "heading",
    "html",
    "markdown",
    "name",
    "numbers",
    "quantity",
    "share",
    "share_range",
    "speedup",
]

NOTHING: Final = "-"
"""What stands in for a value that is missing: never 0."""

_SHARES: Final = frozenset({"share", "severity", "low", "high", "confidence", "flag_above"})
_SMALLEST_PERCENT: Final = 0.1
_LARGEST_WHOLE: Final = 1e15  # a float64 holds every whole number up to here
_TIME_UNITS: Final = ((1e6, "s"), (1e3, "ms"), (1.0, "us"))
_BYTE_UNITS: Final = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def share(value: float | None) -> str:
    """A share of 0 to 1 in percent.

    Examples
    --------
    >>> share(0.58), share(0.0612), share(0.0004), share(0), share(None)
    ('58 %', '6.1 %', '<0.1 %', '0 %', '-')
    """
    if _missing(value):
        return NOTHING
    percent = 100.0 * float(value)  # type: ignore[arg-type]
    if percent == 0.0:
        return "0 %"
    if abs(percent) < _SMALLEST_PERCENT:
        return "<0.1 %" if percent > 0 else ">-0.1 %"
    return f"{percent:.{_decimals(percent, 2)}f} %"


def share_range(low: float, high: float) -> str:
    """Two shares in percent, as an interval.

    Examples
    --------
    >>> share_range(0.512, 0.66), share_range(0.0, 0.066)
    ('51-66 %', '0.0-6.6 %')
    """
    if _missing(low) or _missing(high):
        return NOTHING
    return f"{_interval(100.0 * low, 100.0 * high, 2)} %"


def duration(value_us: float | None) -> str:
    """A time with the unit that suits it, three digits.

    Examples
    --------
    >>> duration(71_000), duration(412.4), duration(2.5e6), duration(0), duration(None)
    ('71.0 ms', '412 us', '2.50 s', '0 us', '-')
    """
    if _missing(value_us):
        return NOTHING
    value = float(value_us)  # type: ignore[arg-type]
    scale, unit = _unit(value, _TIME_UNITS)
    return f"{_digits(value / scale, value / scale)} {unit}"


def duration_range(low_us: float, high_us: float) -> str:
    """Two times in one unit, as an interval.

    Examples
    --------
    >>> duration_range(36_000, 44_100), duration_range(-2_000, 4_000), duration_range(950, 1_040)
    ('36.0-44.1 ms', '-2.00 to 4.00 ms', '0.95-1.04 ms')
    """
    if _missing(low_us) or _missing(high_us):
        return NOTHING
    scale, unit = _unit(max(abs(low_us), abs(high_us)), _TIME_UNITS)
    return f"{_interval(low_us / scale, high_us / scale, 3)} {unit}"


def duration_change(before_us: float, after_us: float) -> str:
    """A time before and after, in one unit.

    Examples
    --------
    >>> duration_change(71_000, 38_000)
    '71.0 -> 38.0 ms'
    """
    scale, unit = _unit(max(abs(before_us), abs(after_us)), _TIME_UNITS)
    largest = max(abs(before_us), abs(after_us)) / scale
    return f"{_digits(before_us / scale, largest)} -> {_digits(after_us / scale, largest)} {unit}"


def duration_estimate(value_us: float, low_us: float, high_us: float) -> str:
    """A time with its interval, in one unit.

    Examples
    --------
    >>> duration_estimate(58_000, 49_000, 69_000)
    '58.0 ms (49.0-69.0)'
    """
    scale, unit = _unit(max(abs(value_us), abs(low_us), abs(high_us)), _TIME_UNITS)
    largest = max(abs(value_us), abs(low_us), abs(high_us)) / scale
    return f"{_digits(value_us / scale, largest)} {unit} ({_interval(low_us / scale, high_us / scale, 3)})"


def byte_size(value: float | None) -> str:
    """A number of bytes with the binary unit that suits it.

    Examples
    --------
    >>> byte_size(61 * 2**30), byte_size(1536), byte_size(0), byte_size(None)
    ('61.0 GiB', '1.50 KiB', '0 B', '-')
    """
    if _missing(value):
        return NOTHING
    size = float(value)  # type: ignore[arg-type]
    scale, unit = _unit(size, _BYTE_UNITS)
    return f"{size:.0f} B" if unit == "B" else f"{_digits(size / scale, size / scale)} {unit}"


def speedup(value: float | None) -> str:
    """A speed-up: how many times as fast.

    Examples
    --------
    >>> speedup(1.3149), speedup(12.04), speedup(None)
    ('1.31x', '12.0x', '-')
    """
    return NOTHING if _missing(value) else f"{_digits(float(value), float(value))}x"  # type: ignore[arg-type]


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Examples
    --------
    >>> count(1, "step"), count(1200, "step")
    ('1 step', '1,200 steps')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def numbers(values: Iterable[int]) -> str:
    """Whole numbers with neighbours joined to ranges.

    Examples
    --------
    >>> numbers([3, 0, 1, 2, 7])
    '0-3, 7'
    """
    ordered = sorted(set(values))
    starts = [value for index, value in enumerate(ordered) if index == 0 or ordered[index - 1] != value - 1]
    ends = [value for index, value in enumerate(ordered) if index == len(ordered) - 1 or ordered[index + 1] != value + 1]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)) or NOTHING


def heading(column: str) -> str:
    """A column's name as a heading: the unit goes, for the cells carry it.

    Examples
    --------
    >>> heading("lost_us"), heading("is_edge")
    ('lost', 'is edge')
    """
    return name(re.sub(r"_(us|bytes)$", "", str(column)).replace("_", " "))


def quantity(column: str, value: Any) -> str:
    """A table's cell in the unit that its column's name ends in.

    Examples
    --------
    >>> quantity("lost_us", 41_200.0), quantity("severity", 0.58), quantity("count", 1200), quantity("ranks", (0, 1))
    ('41.2 ms', '58 %', '1,200', '0-1')
    """
    if isinstance(value, (tuple, list)):
        whole = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
        return name(numbers(value) if whole else ", ".join(map(str, value)))
    if isinstance(value, str) or _missing(value):
        return NOTHING if not isinstance(value, str) else name(value)
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    try:
        return _number(column, float(value))
    except (TypeError, ValueError):
        return name(value)


def _number(column: str, value: float) -> str:
    if not math.isfinite(value):
        return NOTHING
    if column.endswith("_us"):
        return duration(value)
    if column.endswith("_bytes") or column == "bytes":
        return byte_size(value)
    if column in _SHARES or column.endswith("_share"):
        return share(value)
    return f"{value:,.0f}" if value == int(value) and abs(value) < _LARGEST_WHOLE else f"{value:.4g}"


def _missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and not math.isfinite(value)


def _unit(value: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    size = abs(value)
    return next(((scale, unit) for scale, unit in units if size >= scale * 0.9995), units[-1])


def _decimals(value: float, digits: int) -> int:
    """Digits after the point, so that a number shows so many digits; 0.9999 counts as the 1.00 that it is rounded to."""
    rounded = abs(float(f"{value:.{digits - 1}e}"))
    return max(0, digits - 1 - math.floor(math.log10(rounded))) if rounded else 0


def _digits(value: float, largest: float) -> str:
    return f"{value:.{min(_decimals(largest, 3), 3)}f}"


def _interval(low: float, high: float, digits: int) -> str:
    places = min(_decimals(max(abs(low), abs(high)), digits), 3)
    joint = "-" if low >= 0 else " to "
    return f"{low:.{places}f}{joint}{high:.{places}f}"
