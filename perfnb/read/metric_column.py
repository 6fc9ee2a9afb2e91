"""A column of a log as numbers, with what was written as NaN kept apart from what was not written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.read.metric_meaning import Meaning

Floats = NDArray[np.float64]

_LARGEST: Final = 10**300


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column of numbers: as it is written, and what it means.

    Attributes
    ----------
    name, origin
        Its name, and the input it stands in.
    meaning
        What the name means.
    numbers
        Its numbers, NaN where there is none.
    is_nan
        Where a NaN was written, rather than nothing.
    unit, is_given
        Its unit once that is known, and whether the caller gave it.
    is_durations
        Whether its values were objects that state their unit, such as timedelta: the numbers are microseconds.
    """

    name: str
    origin: str
    meaning: Meaning
    numbers: Floats
    is_nan: NDArray[np.bool_]
    unit: str | None = None
    is_given: bool = False
    is_durations: bool = False

    @property
    def largest(self) -> float:
        """Its largest number, whatever the sign; 0 where it has none."""
        known = self.numbers[np.isfinite(self.numbers)]
        return float(np.abs(known).max()) if known.size else 0.0

    @property
    def is_rate(self) -> bool:
        """Whether its unit or its name says that it is per second."""
        return (self.unit or "").endswith("/s") or (self.meaning.unit or "").endswith("/s")


def numbers_of(values: pd.Series) -> tuple[Floats, NDArray[np.bool_], list[str]]:
    """A column's numbers, where a NaN was written, and the texts that are no number.

    Examples
    --------
    >>> found, is_nan, texts = numbers_of(pd.Series([1, "2.5", None, "nan", "n/a"], dtype=object))
    >>> found, is_nan.tolist(), texts
    (array([1. , 2.5, nan, nan, nan]), [False, False, False, True, False], ['n/a'])
    """
    if getattr(values.dtype, "kind", "O") in "iufb":
        found: Floats = values.to_numpy(dtype="float64", na_value=np.nan)
        return found, np.zeros(len(found), dtype=np.bool_), []
    items = [None if item is pd.NA or item is pd.NaT else item for item in values.astype(object)]
    kinds = {type(item) for item in items}
    if kinds <= {float, type(None), bool} or (kinds <= {int, float, type(None), bool} and _fit(items)):
        found = np.array([np.nan if item is None else item for item in items], dtype=np.float64)
    else:
        found = pd.to_numeric(pd.Series([_plain(item) for item in items], dtype=object), errors="coerce").to_numpy(
            dtype="float64"
        )
    unknown = np.isnan(found)
    is_nan = np.zeros(len(found), dtype=np.bool_)
    texts: list[str] = []
    for place in np.flatnonzero(unknown):
        item = items[place]
        if _is_nan(item):
            is_nan[place] = True
        elif isinstance(item, str) and item.strip().lower() not in ("", "none", "null", "na", "<na>", "-"):
            texts.append(item)
    return found, is_nan, texts


def durations_of(values: pd.Series) -> tuple[Floats, list[str]] | None:
    """A column of durations, such as timedelta, in microseconds, and what in it is none; None where it has no durations.

    Examples
    --------
    >>> durations_of(pd.Series([timedelta(milliseconds=20), None, np.timedelta64(30, "ms"), 5], dtype=object))
    (array([20000.,    nan, 30000.,    nan]), ['5'])
    """
    kind = getattr(values.dtype, "kind", "O")
    if kind == "m":
        microseconds = values / pd.Timedelta(microseconds=1)  # type: ignore[operator] # by its kind, a Series of durations
        return microseconds.to_numpy(dtype="float64", na_value=np.nan), []
    if kind != "O" or not any(isinstance(item, (timedelta, np.timedelta64)) for item in values):
        return None
    found = np.array([_microseconds(item) for item in values], dtype=np.float64)
    is_other = [not isinstance(item, (timedelta, np.timedelta64)) and item is not None and item is not pd.NaT for item in values]
    others = [item for item, is_one in zip(values, is_other, strict=True) if is_one]
    return found, [str(item) for item in others if item is not pd.NA and not _is_nan(item)]


def _microseconds(item: Any) -> float:
    try:
        if isinstance(item, np.timedelta64):
            return float(item / np.timedelta64(1, "us"))
        return float(item / timedelta(microseconds=1)) if isinstance(item, timedelta) else np.nan
    except TypeError:  # years and months are of no length
        return np.nan


def _is_nan(item: Any) -> bool:
    if isinstance(item, str):
        return item.strip().lower() in ("nan", "-nan", "+nan")
    try:
        return item is not None and bool(item != item)  # noqa: PLR0124 - the test for NaN
    except (TypeError, ValueError, RuntimeError):  # several values, of which some may be NaN
        return False


def _plain(item: object) -> object:
    """A cell as pandas can convert it: numbers of other libraries, such as tensors of one element, by `float`."""
    if item is None or isinstance(item, (str, float)):
        return item
    single = getattr(item, "item", None)
    try:
        return float(single() if callable(single) else item)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None
    except OverflowError:
        return np.inf


def _fit(items: list[object]) -> bool:
    """Whether each whole number fits a float64, which a number in JSON need not."""
    return all(not isinstance(item, int) or -_LARGEST < item < _LARGEST for item in items)
