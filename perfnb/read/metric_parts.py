"""One input of `read_metrics` with its columns understood: which row is which, values in the units of the tables, the rest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Column, Floats, durations_of, numbers_of
from perfnb.read.metric_meaning import Meaning, meaning, normalised
from perfnb.read.metric_rows import Rows
from perfnb.read.metric_units import Units
from perfnb.text import clean, count

_SHOWN: Final = 80
_LARGEST_WHOLE: Final = 2**53  # a float64 holds every whole number up to here
_OFTEN_DURATIONS: Final = ("time", "elapsed", "elapsed_time")
_MOST_EQUAL: Final = 0.5  # a clock of which more than half of the readings are equal is none


@dataclass(slots=True, eq=False)
class Part:
    """An input: one entry per row in each array, in the order of the log.

    Attributes
    ----------
    origin
        Name of the input.
    rank, step, epoch, gpu
        Which row it is, NaN where the log does not say; None where it has no such column.
    host
        Name of the host, None where the log has no such column.
    time_us
        Moments, None where there are none.
    since_1970, time_name
        Whether the moments count from 1970, and the column that holds them.
    found
        Columns with their values in the units of the tables.
    rest
        Columns of numbers that no table has a column for.
    texts
        Names of columns without numbers.
    notes
        Sentences on what was left out.
    """

    origin: str
    size: int
    rank: Floats | None = None
    step: Floats | None = None
    epoch: Floats | None = None
    gpu: Floats | None = None
    host: NDArray[np.object_] | None = None
    time_us: Floats | None = None
    since_1970: bool = False
    time_name: str = ""
    found: list[tuple[Column, Floats]] = field(default_factory=list)
    rest: list[tuple[str, Floats]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def column(self, name: str) -> Floats | None:
        """Values of the first column of a quantity that is not of one GPU; None where there is none."""
        return next((values for column, values in self.found if column.meaning.quantity.name == name), None)

    def taken(self, rows: NDArray[np.intp]) -> Part:
        """The part with rows chosen or put in another order."""

        def chosen(values: Floats | None) -> Floats | None:
            return None if values is None else values[rows]

        return Part(
            origin=self.origin,
            size=len(rows),
            rank=chosen(self.rank),
            step=chosen(self.step),
            epoch=chosen(self.epoch),
            gpu=chosen(self.gpu),
            host=None if self.host is None else self.host[rows],
            time_us=chosen(self.time_us),
            since_1970=self.since_1970,
            time_name=self.time_name,
            found=[
                (replace(column, numbers=column.numbers[rows], is_nan=column.is_nan[rows]), values[rows])
                for column, values in self.found
            ],
            rest=[(name, values[rows]) for name, values in self.rest],
            texts=self.texts,
            notes=self.notes,
        )


def part_of(rows: Rows, units: Units) -> Part:
    """An input with its columns understood; columns whose unit nothing tells are left in `units.asked`.

    Raises
    ------
    LogFormatError
        If a column that says which row it is holds no whole numbers, or values contradict their unit.
    """
    part = Part(rows.label, len(rows.frame), notes=list(rows.notes))
    seen: dict[tuple[str, int | None], str] = {}
    columns: list[Column] = []
    for name in sorted(rows.frame.columns, key=lambda name: name.startswith("_")):  # wandb's own _step counts calls of log()
        means = meaning(name, rows.label)
        values = rows.frame[name]
        if means is not None and means.quantity.name == "host":
            part.host = values.astype(object).to_numpy(dtype=object)
            continue
        if means is not None and means.quantity.name == "timestamp":
            _take_moment(part, name, values, means, units)
            continue
        column = _column(part, name, values, means)
        if column is None:
            continue
        key = (column.meaning.quantity.name, column.meaning.gpu)
        if means is None or key in seen:
            if means is not None:
                part.notes.append(
                    f"{clean(name, _SHOWN)!r} and {clean(seen[key], _SHOWN)!r} both are {key[0]}: the former is among the metrics"
                )
            part.rest.append((name, column.numbers))
            continue
        seen[key] = name
        if means.quantity.table == "row":
            setattr(part, means.quantity.column, _whole(column) if means.quantity.kind == "whole" else column.numbers)
        else:
            columns.append(column)
    _check_moments(part)
    largest: dict[str, float] = {}
    for column in columns:  # one unit for all GPUs: that of one which idles cannot be told by itself
        quantity = column.meaning.quantity.name
        largest[quantity] = max(largest.get(quantity, 0.0), column.largest)
    part.found = [units.converted(column, largest[column.meaning.quantity.name]) for column in columns]
    return part


def _column(part: Part, name: str, values: pd.Series, means: Meaning | None) -> Column | None:
    """The column as numbers; None, and a note, where it holds text."""
    durations = durations_of(values)
    if durations is not None and means is not None and means.quantity.kind not in ("time", "moment"):
        part.texts.append(name)
        return None
    found, is_nan, texts = numbers_of(values) if durations is None else (durations[0], np.isnan(durations[0]), durations[1])
    if texts and len(texts) >= np.isfinite(found).sum():
        part.texts.append(name)
        return None
    if texts:
        what = "number" if durations is None else "duration"
        part.notes.append(
            f"{part.origin}: {count(len(texts), 'value')} of {clean(name, _SHOWN)!r} "
            f"{'is' if len(texts) == 1 else 'are'} no {what} ({clean(texts[0], 40)!r}), and read as missing"
        )
    if not np.isfinite(found).any() and not np.isinf(found).any() and not is_nan.any():
        part.texts.append(name)
        return None
    if durations is not None and means is None:
        part.notes.append(f"{part.origin}: durations of {clean(name, _SHOWN)!r} are in metrics, in microseconds")
    return Column(name, part.origin, means or _UNKNOWN, found, is_nan, is_durations=durations is not None)


def _take_moment(part: Part, name: str, values: pd.Series, means: Meaning, units: Units) -> None:
    """Take a column of moments; of several, one that counts from 1970 is preferred."""
    dates = _dates(values)
    if dates is not None:
        moments, since_1970 = dates, True
        units.stated(name, "timestamp")
    else:
        column = _column(part, name, values, means)
        if column is None:
            return
        if part.time_us is not None and part.since_1970:
            part.rest.append((name, column.numbers))
            return
        read = units.moments(column)
        if read is None:
            return
        moments, since_1970 = read
    if part.time_us is None or (since_1970 and not part.since_1970):
        part.time_us, part.since_1970, part.time_name = moments, since_1970, name


def _dates(values: pd.Series) -> Floats | None:
    """Moments in us since 1970 of a column of dates; None where it holds none."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return None
    known = values.dropna()
    if known.empty or (values.dtype == object and not all(not isinstance(item, (int, float)) for item in known.iloc[:20])):
        return None
    try:
        read = pd.to_datetime(values, utc=True, format=None if values.dtype.kind == "M" else "ISO8601")
    except (ValueError, TypeError, OverflowError):
        return None
    nanoseconds = read.dt.as_unit("ns").astype("int64").to_numpy()
    return np.where(read.isna().to_numpy(), np.nan, nanoseconds / 1e3)


def _check_moments(part: Part) -> None:
    """Refuse moments that do not go on: such a column is a duration under a name that moments have, too."""
    if part.time_us is None or part.since_1970 or normalised(part.time_name) not in _OFTEN_DURATIONS:
        return
    order = [np.arange(part.size), *(key for key in (part.step, part.epoch, part.rank) if key is not None)]
    known = part.time_us[np.lexsort(order)]
    known = known[np.isfinite(known)]
    falls = (np.diff(known) < 0).sum() >= (1 if part.rank is None else len(np.unique(part.rank)))
    if known.size > 1 and (falls or (np.diff(np.sort(known)) == 0).mean() > _MOST_EQUAL):
        message = (
            f"{clean(part.time_name, _SHOWN)!r} ({part.origin}) falls and rises, or stays, from row to row, so it is no moment: "
            "rename it to step_time if it is the time of a step, or to timestamp"
        )
        raise LogFormatError(message)


def _whole(column: Column) -> Floats:
    known = column.numbers[np.isfinite(column.numbers)]
    if (known != np.floor(known)).any() or (np.abs(known) > _LARGEST_WHOLE).any() or np.isinf(column.numbers).any():
        odd = known[(known != np.floor(known)) | (np.abs(known) > _LARGEST_WHOLE)]
        message = (
            f"{clean(column.name, _SHOWN)!r} ({column.origin}) holds {odd[0] if odd.size else 'inf'}, and a "
            f"{column.meaning.quantity.name} is a whole number: rename the column if it is something else"
        )
        raise LogFormatError(message)
    return column.numbers


def _unknown() -> Meaning:
    from perfnb.read.metric_names import Quantity  # noqa: PLC0415 - one value

    return Meaning(Quantity("", "number", "metrics", ""))


_UNKNOWN = _unknown()
