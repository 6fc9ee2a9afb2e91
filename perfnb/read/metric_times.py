"""Steps of a log: durations and moments put on one time line, with what contradicts itself refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Floats
from perfnb.read.metric_parts import Part
from perfnb.read.metric_phases import phases_of
from perfnb.text import count, duration

_MOST_TIME: Final = 1.05  # of the time between two rows that their steps can have taken
_LEAST_TIME: Final = 0.01
_FEWEST_ROWS: Final = 2
_LARGEST_EPOCH: Final = 2.0**53


@dataclass(slots=True, eq=False)
class Times:
    """Steps and phases of a log, and the moment of each of its rows (at the end of its step), in us since the origin."""

    steps: pd.DataFrame
    phases: pd.DataFrame
    row_us: Floats
    communication_us: Floats | None
    missing: dict[str, str]
    notes: list[str]


def times_of(part: Part, origin_us: float) -> Times:
    """Steps, phases and moments of a training log with one row per rank and step.

    Parameters
    ----------
    part
        The log, from `with_steps`.
    origin_us
        Moment on the log's clock at which the run's time line begins.

    Raises
    ------
    LogFormatError
        If durations contradict one another or the moments, as durations in another unit do.
    """
    notes: list[str] = []
    missing: dict[str, str] = {}
    assert part.rank is not None and part.step is not None  # noqa: S101, PT018 - with_steps set them
    length = part.column("step_time")
    moments = None if part.time_us is None else part.time_us - origin_us
    inferred = length is None and moments is not None
    if length is None:
        length = _between(part, moments)
        if moments is None or not np.isfinite(length).any():
            missing["steps"] = _no_steps(moments)
        else:
            notes.append(
                "no column of step times: a step's time is that between the rows of two neighbouring steps, whatever was in it"
            )
    elif moments is not None:
        _check_moments(part, length, moments)
    known = np.isfinite(length) & (length > 0.0)
    if not inferred and len(known) > known.sum() > 0:
        notes.append(
            f"{count(int((~known).sum()), 'row')} of {len(known):,} without a step time above 0 are not in the table of steps"
        )
    elif not inferred and not known.any() and "steps" not in missing:
        missing["steps"] = "no row has a step time above 0"
    if moments is None:
        moments = _end_to_end(part, length)
        if known.any():
            gaps = _is_sparse(part)
            notes.append(
                "no column of moments: steps are laid end to end"
                + (", though steps between them are not in the log" if gaps else "")
            )
    steps = pd.DataFrame(
        {
            "rank": part.rank[known].astype(np.int64),
            "step": part.step[known].astype(np.int64),
            "start_us": (moments - length)[known],
            "duration_us": length[known],
            "steps_inferred": inferred,
        }
    )
    if part.epoch is not None and (whole := part.epoch[~np.isnan(part.epoch)]).size and _are_whole(whole):
        steps["epoch"] = pd.array(part.epoch[known], dtype="Float64").astype("Int64")
    steps = steps[np.isfinite(steps["start_us"])]
    if len(steps) < known.sum():
        notes.append(f"{count(int(known.sum()) - len(steps), 'step')} without a moment left out")
    phases = phases_of(part, length, known & np.isfinite(moments), missing.get("steps"))
    return Times(steps, phases.frame, moments, phases.communication_us, missing | phases.missing, notes + phases.notes)


def _are_whole(values: Floats) -> bool:
    return bool((np.abs(values) < _LARGEST_EPOCH).all() and (values == np.floor(values)).all())


def _no_steps(moments: Floats | None) -> str:
    if moments is None:
        return "the log has no column of step times and no moments from which to tell them: log step_time in every step"
    return "the log has no column of step times, and its rows are further apart than one step: log step_time in every step"


def _between(part: Part, moments: Floats | None) -> Floats:
    """Time since the row before, of rows whose step follows that row's; NaN elsewhere."""
    length = np.full(part.size, np.nan)
    if moments is None or part.size < _FEWEST_ROWS or part.rank is None or part.step is None:
        return length
    follows = (np.diff(part.step) == 1) & (np.diff(part.rank) == 0)
    length[1:] = np.where(follows, np.diff(moments), np.nan)
    return length


def _end_to_end(part: Part, length: Floats) -> Floats:
    if not np.isfinite(length).any():
        return np.full(part.size, np.nan)
    assert part.rank is not None  # noqa: S101 - with_steps set it
    length = np.where(length > 0, length, np.nan)  # what took no time, or less, moves nothing
    return np.asarray(pd.Series(np.nan_to_num(length)).groupby(part.rank).cumsum(), dtype=np.float64)


def _is_sparse(part: Part) -> bool:
    assert part.rank is not None and part.step is not None  # noqa: S101, PT018 - with_steps set them
    same = np.diff(part.rank) == 0
    return bool(same.any() and np.median(np.diff(part.step)[same]) > 1)


def _check_moments(part: Part, length: Floats, moments: Floats) -> None:
    """Refuse step times that do not fit between the moments of their rows, or are next to nothing of them."""
    apart = _between(part, moments)
    both = np.isfinite(apart) & np.isfinite(length) & (length > 0.0)
    if both.sum() < _FEWEST_ROWS or apart[both].sum() <= 0.0:
        return
    ratio = float(length[both].sum() / apart[both].sum())
    # moments written with whole seconds may be off by one at either end
    spread = float(length[both].max()) + 2e6
    if length[both].sum() > _MOST_TIME * apart[both].sum() + spread or ratio < _LEAST_TIME:
        message = (
            f"{count(int(both.sum()), 'step')} take {duration(length[both].sum())} by their step times and "
            f"{duration(apart[both].sum())} by the moments of their rows ({ratio:.3g} times): one of the two units is wrong, "
            'pass the true ones, as units={"step_time": "ms", "timestamp": "s"}'
        )
        raise LogFormatError(message)
