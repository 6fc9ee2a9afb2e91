"""Units of a log's columns: from the name, from the caller, from a stated convention; never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Column, Floats
from perfnb.read.metric_meaning import normalised
from perfnb.read.metric_names import Kind
from perfnb.text import clean, count

_TIMES: Final = MappingProxyType({"h": 3.6e9, "min": 6e7, "s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3})
_SIZES: Final = MappingProxyType(
    {
        "B": 1.0,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
        "TiB": 2.0**40,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "KB?": 2.0**10,
        "MB?": 2.0**20,
        "GB?": 2.0**30,
    }
)
_FACTORS: Final[Mapping[Kind, Mapping[str, float]]] = MappingProxyType(
    {
        "time": _TIMES,
        "moment": _TIMES,
        "bytes": _SIZES,
        "flow": MappingProxyType({**_SIZES, **{f"{unit}/s": factor for unit, factor in _SIZES.items()}}),
        "share": MappingProxyType({"percent": 0.01, "share": 1.0}),
        "watt": MappingProxyType({"W": 1.0, "mW": 1e-3}),
        "celsius": MappingProxyType({"C": 1.0}),
        "megahertz": MappingProxyType({"MHz": 1.0}),
    }
)
"""Unit to its size in the unit of the tables: microseconds, bytes, shares of 0 to 1, watts."""

_TYPICAL: Final[Mapping[str, str]] = MappingProxyType(
    {"time": "s", "moment": "s", "bytes": "MiB", "flow": "B", "share": "percent"}
)
_WHOLE_SHARE: Final = 1.005  # a percent or share is a rounded quotient
_LARGEST_POWER_W: Final = 2_500.0  # no accelerator draws more, and none idles below 2.5 W = 2,500 mW
_SMALLEST_BYTES: Final = MappingProxyType({"gpu": 2.0**30, "host": 2.0**34})
"""From here on a size can only be bytes: as KiB it would be 1 TiB of one GPU, or 16 TiB of a host."""
_MOMENTS: Final = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""From here on a number is a time since 1970 in that unit: 1973 at the earliest, and in the next finer unit January 1970."""
_LATEST_US: Final = 1e17  # the year 5138: what is later is no moment
_SHOWN: Final = 80


@dataclass(slots=True)
class Units:
    """The caller's units, what was asked for, and notes on conventions; one object per reading.

    Attributes
    ----------
    given
        Column name, quantity or pattern to unit.
    notes
        Sentences on conventions that were applied.
    asked
        Columns whose unit nothing tells.
    used
        Keys of `given` that met a column.
    """

    given: Mapping[str, str]
    notes: dict[str, list[str]]
    asked: list[Column]
    used: set[str]

    @classmethod
    def of(cls, units: Mapping[str, Any] | str | None) -> Units:
        """A reading's units.

        Raises
        ------
        LogFormatError
            If a unit is none, or they are no mapping.
        """
        if units is not None and not isinstance(units, Mapping):  # a caller without types
            message = f'units is a {type(units).__name__}: pass a mapping of column to unit, e.g. {{"*_time": "ms"}}'
            raise LogFormatError(message)
        known = {unit for factors in _FACTORS.values() for unit in factors if not unit.rstrip("/s").endswith("?")}
        for name, unit in (units or {}).items():
            if not isinstance(unit, str) or unit not in known:
                message = f"units: {clean(unit, _SHOWN)!r} of {clean(name, _SHOWN)!r} is no unit: use {', '.join(sorted(known))}"
                raise LogFormatError(message)
        return cls({str(name): unit for name, unit in (units or {}).items()}, {}, [], set())

    def stated(self, name: str, quantity: str) -> str | None:
        """The caller's unit of a column: by its name, by its quantity, or by a pattern such as `*_time`."""
        for key in (name, quantity, normalised(name)):
            if key in self.given:
                self.used.add(key)
                return self.given[key]
        for key, unit in self.given.items():
            if any(sign in key for sign in "*?[") and fnmatchcase(name, key):
                self.used.add(key)
                return unit
        return None

    def converted(self, column: Column, largest: float) -> tuple[Column, Floats]:
        """A column with its unit, and its values in the unit of the tables; NaN all over where the unit has to be asked for.

        Parameters
        ----------
        column
            The column.
        largest
            The largest number of all columns of its quantity, those of other GPUs included.

        Raises
        ------
        LogFormatError
            If the unit does not suit the quantity, or the values contradict it.
        """
        kind = column.meaning.quantity.kind
        factors = _FACTORS.get(kind)
        if factors is None:
            return column, column.numbers
        given = self.stated(column.name, column.meaning.quantity.name)
        if column.is_durations:  # they state their unit, whatever a pattern says of others
            given = "us"
        unit = given or self._known(column, largest)
        if unit is None:
            self.asked.append(column)
            return column, np.full(len(column.numbers), np.nan)
        if unit not in factors:
            message = (
                f"{clean(column.name, _SHOWN)!r} cannot be in {unit}: it is {column.meaning.quantity.name}, in {_choices(kind)}"
            )
            raise LogFormatError(message)
        factor = factors[unit]  # 93 percent divided by 100 are 0.93, times 0.01 they are not
        with np.errstate(over="ignore"):
            values = column.numbers * factor if factor >= 1.0 else column.numbers / round(1.0 / factor)
        values = np.where(np.isfinite(values), values, np.nan)  # no time and no size is infinite
        if kind == "share" and column.meaning.quantity.name != "process_cpu_percent":
            _check_share(column, unit, values)
        return replace(column, unit=unit.removesuffix("/s").removesuffix("?") + ("/s" if unit.endswith("/s") else ""),
                       is_given=given is not None), values  # fmt: skip

    def _known(self, column: Column, largest: float) -> str | None:
        """The unit of a column by its name or by a convention; None where nothing tells it."""
        meaning, name = column.meaning, column.name
        kind = meaning.quantity.kind
        if meaning.source:
            self._note(f"in {meaning.unit} by {meaning.source}", name)
            return meaning.unit
        if largest == 0.0:
            return next(iter(_FACTORS[kind]))  # nothing but zeros: any unit will do
        if kind == "share":
            return self._percent_or_share(column, largest)
        if meaning.unit is not None and meaning.unit != "?/s":
            if "?" in meaning.unit:
                self._note('read as powers of 1024 (for powers of 1000 pass units={"NAME": "MB"})', name)
            return meaning.unit
        if kind == "bytes":
            where = "gpu" if meaning.quantity.table in ("gpu_samples", "allocator") else "host"
            if largest >= _SMALLEST_BYTES[where]:
                self._note("read as bytes: its largest value is more than any device has in a larger unit", name)
                return "B"
        if kind in ("celsius", "megahertz") or (kind == "watt" and largest <= _LARGEST_POWER_W):
            unit = {"celsius": "C", "megahertz": "MHz", "watt": "W"}[kind]
            self._note(f"read as {unit}, as drivers and tools write it", name)
            return unit
        return None

    def moments(self, column: Column) -> tuple[Floats, bool] | None:
        """Moments of a column in us, and whether they count from 1970; None where their unit has to be asked for."""
        known = column.numbers[np.isfinite(column.numbers)]
        unit = self.stated(column.name, column.meaning.quantity.name) or column.meaning.unit
        if column.is_durations:
            unit = "us"
        if unit is None:
            unit = next((unit for start, unit in _MOMENTS if column.largest >= start), None)
            if unit is None:
                self.asked.append(column)
                return None
            self._note(f"read as {unit} since 1970, by its size", column.name)
        if unit not in _TIMES:
            message = f"{clean(column.name, _SHOWN)!r} cannot be in {unit}: it is a moment, in {_choices('moment')}"
            raise LogFormatError(message)
        with np.errstate(over="ignore"):
            values = column.numbers * _TIMES[unit]
        values = np.where(np.abs(values) < _LATEST_US, values, np.nan)
        return values, bool(known.size) and float(known.min()) * _TIMES[unit] >= 1e8 * _TIMES["s"]

    def finish(self, names: Iterable[str]) -> tuple[str, ...]:
        """Notes on all conventions; to be called when every column was looked at.

        Raises
        ------
        LogFormatError
            If the unit of a column is not known, or `units` names a column that is not there.
        """
        unused = [key for key in self.given if key not in self.used]
        if unused:
            known = [clean(name, _SHOWN) for name in names]
            shown = f"{', '.join(known[:40])}{', ...' if len(known) > 40 else ''}"  # noqa: PLR2004 - fits a screen
            message = f"units names {clean(unused[0], _SHOWN)!r}, which no column with a unit has: the log has {shown}"
            raise LogFormatError(message)
        if self.asked:
            raise LogFormatError(_question(self.asked))
        return tuple(f"{_listed(columns)}: {text}" for text, columns in self.notes.items())

    def _percent_or_share(self, column: Column, largest: float) -> str | None:
        unit = column.meaning.unit
        if largest > _WHOLE_SHARE and unit is None:
            self._note(f"read as percent, for values reach {_number(largest)}", column.name)
            return "percent"
        if unit == "percent" and largest <= 1.0:
            return None  # 0.4 may be 0.4 % or a share written under a name that says percent
        return unit

    def _note(self, text: str, name: str) -> None:
        self.notes.setdefault(text, []).append(clean(name, _SHOWN))


def _check_share(column: Column, unit: str, values: Floats) -> None:
    known = values[np.isfinite(values)]
    if known.size and (known.max() > _WHOLE_SHARE or known.min() < 0.0):
        written = column.numbers[np.isfinite(values)]
        end = 100 if unit == "percent" else 1
        message = (
            f"{clean(column.name, _SHOWN)!r} goes from {_number(written.min())} to {_number(written.max())}, and {unit} ends at "
            f"{end}: "
            "give its true unit in units=; CPU use of a process in percent of one core is process_cpu_percent"
        )
        raise LogFormatError(message)


def _question(asked: list[Column]) -> str:
    groups: dict[tuple[str, str], list[Column]] = {}
    for column in asked:
        name = column.name if column.meaning.gpu is None else column.meaning.quantity.name
        groups.setdefault((name, column.origin), []).append(column)
    shown = []
    for (name, origin), columns in groups.items():
        known = np.concatenate([column.numbers[np.isfinite(column.numbers)] for column in columns])
        span = f"{_number(known.min())} to {_number(known.max())}" if known.size else "no value"
        of = f" of {len(columns)} GPUs" if len(columns) > 1 else ""
        shown.append(f"{clean(name, _SHOWN)!r}{of} ({origin}, {span}: {_choices(columns[0].meaning.quantity.kind)})")
    call = ", ".join(
        f'"{clean(name, _SHOWN)}": "{_TYPICAL.get(columns[0].meaning.quantity.kind, "W")}"'
        for (name, _), columns in groups.items()
    )
    return (
        f"{count(len(groups), 'column has', 'columns have')} no unit, and perfnb guesses none: {'; '.join(shown)}. "
        f"Name the true ones, for example units={{{call}}}"
    )


def _choices(kind: Kind) -> str:
    names = [unit for unit in _FACTORS[kind] if "?" not in unit and not unit.endswith("/s")]
    return ", ".join(names) + (", or one of them per second: B/s" if kind == "flow" else "")


def _listed(columns: list[str]) -> str:
    once = list(dict.fromkeys(columns))
    return ", ".join(once[:8]) + (f" and {len(once) - 8} more" if len(once) > 8 else "")  # noqa: PLR2004 - fits a line


def _number(value: float) -> str:
    return f"{value:.6g}"
