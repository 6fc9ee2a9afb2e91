"""Steps and phases of one recorded rank: every step's phases sum to it, and every phase's parts to the phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd

from perfnb import text
from perfnb.read.recorded_clock import split
from perfnb.read.recorded_columns import Bools, Columns, Floats, Ints, table_of, texts

OTHER: Final = "other"
_PARTS: Final = ("wall_us", "cpu_us", "runqueue_us", "blocked_us")
_WORTH_SAYING_US: Final = 1.0  # two readings of a clock may be that far apart
_TOLERANCE_US: Final = 1e-3  # what the ledger allows
_RELATIVE: Final = 1e-9
_LARGEST: Final = 2**63 - 1
_ALIKE_SHARE: Final = 0.01  # of a step: a rest this small is taken to be made of what `other` is made of


@dataclass(slots=True)
class Told:
    """Tables of one rank, what to say of them, and what they lack.

    Attributes
    ----------
    frames
        Table to rows, which lack the rank.
    notes
        Sentences.
    gaps
        Rows of the table gaps without the rank: table, column, reason.
    """

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gaps: list[tuple[str, str, str]] = field(default_factory=list)


def steps_of(columns: Columns, origin_ns: int, told: Told) -> pd.DataFrame:
    """Steps in order of time, in microseconds since the origin on the rank's own clock."""
    has_step = columns.integers("step")[1]
    (start, has_start), (end, has_end) = columns.integers("start_ns"), columns.integers("end_ns")
    whole = has_step & has_start & has_end & (end >= start) & (end - start >= 0)  # the difference may be past 2**63
    if not whole.all():
        told.notes.append(f"{text.count(int((~whole).sum()), 'step')} without a start, an end or a number left out")
    frame = table_of("steps", columns).assign(start_us=microseconds(start, origin_ns), duration_us=(end - start) / 1000)
    frame = frame[whole].sort_values("start_us", kind="stable")
    repeated = frame.duplicated("step", keep="last")
    if repeated.any():
        told.notes.append(f"{text.count(int(repeated.sum()), 'step')} whose number came again left out: the later ones count")
    return frame[~repeated].reset_index(drop=True)


def microseconds(moments_ns: Ints, origin_ns: int) -> Floats:
    """Moments since the origin; it is subtracted as a whole number, for a float holds no absolute nanoseconds."""
    return (moments_ns - np.int64(min(max(origin_ns, -_LARGEST), _LARGEST))) / 1000.0


def phases_of(columns: Columns, steps: pd.DataFrame, told: Told, *, is_whole: bool) -> pd.DataFrame:
    """Phases of those steps; what the recorded ones leave of a step is `other`, so that they sum to it.

    Parameters
    ----------
    columns
        Rows of the table phases, in order of time.
    steps
        See `steps_of`.
    told
        Takes notes and gaps.
    is_whole
        Whether the recording ended by itself. Else the phases of the last step may be there in part, and are then left out.
    """
    step, has_step = columns.integers("step")
    wall, cpu, runqueue = (_measured(columns.floats(name)) for name in ("wall_ns", "cpu_ns", "runqueue_ns"))
    parts = split(wall, cpu, runqueue)
    frame = pd.DataFrame(
        {
            "step": step,
            "phase": texts(columns.values("phase")),
            "wall_us": wall / 1000,
            "cpu_us": parts.cpu / 1000,
            "runqueue_us": parts.runqueue / 1000,
            "blocked_us": parts.blocked / 1000,
            "device_us": _measured(columns.floats("device_us")),
        }
    )
    if len(frame) and parts.reason:
        told.gaps += [("phases", column, parts.reason) for column in ("runqueue_us", "blocked_us")]
    numbers = steps["step"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    place, belongs = _places(step, numbers, order)
    kept = has_step & belongs & frame["phase"].notna().to_numpy()
    if is_whole and not kept.all():
        told.notes.append(f"{text.count(int((~kept).sum()), 'phase')} of steps that are not there left out")
    frame, place = frame[kept], place[kept]
    frame, place = _one_row_each(frame, place)
    by_time = np.argsort(place, kind="stable")
    frame, place = frame.iloc[by_time].reset_index(drop=True), place[by_time]
    return _summing(frame, place, steps, told, is_whole=is_whole)


def _measured(values: Floats) -> Floats:
    return np.where(np.isfinite(values) & (values >= 0), values, np.nan)


def _places(step: Ints, numbers: Ints, order: Ints) -> tuple[Ints, Bools]:
    """Position of each row's step among the steps, and whether it is there."""
    if not len(numbers):
        return np.zeros(len(step), dtype=np.int64), np.zeros(len(step), dtype=np.bool_)
    found = np.minimum(np.searchsorted(numbers, step, sorter=order), len(numbers) - 1)
    place = order[found]
    return place.astype(np.int64), numbers[place] == step


def _one_row_each(frame: pd.DataFrame, place: Ints) -> tuple[pd.DataFrame, Ints]:
    """Rows of the same step and phase added up."""
    codes = place * (len(frame["phase"].cat.categories) + 1) + frame["phase"].cat.codes.to_numpy()
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    if len(first) == len(frame):
        return frame, place
    sums = {name: np.bincount(group, weights=frame[name].to_numpy(), minlength=len(first)) for name in (*_PARTS, "device_us")}
    one: pd.DataFrame = frame.iloc[first.tolist()]
    return one.assign(**sums), place[first]


def _summing(frame: pd.DataFrame, place: Ints, steps: pd.DataFrame, told: Told, *, is_whole: bool) -> pd.DataFrame:
    """Phases of which those of one step sum to it."""
    duration = steps["duration_us"].to_numpy()
    wall = frame["wall_us"].to_numpy()
    known = ~np.isnan(wall)
    frame, place, unknown = frame[known], place[known], np.bincount(place[~known], minlength=len(steps)) > 0
    total = np.bincount(place, weights=wall[known], minlength=len(steps))
    rest = np.where(np.bincount(place, minlength=len(steps)) > 0, duration - total, 0.0)
    rest = np.where(unknown & (rest > 0), 0.0, rest)  # what is left holds the phases whose length nobody knows
    if len(place) and place[0] > 0 and rest[place[0]] > _WORTH_SAYING_US:  # memory holds the newest rows only
        frame, place = _without(place[0], frame, place, rest)
    if not is_whole and len(place) and rest[place[-1]] > _WORTH_SAYING_US:
        last = place[-1]
        told.notes.append(f"phases of the last step, {int(steps['step'].iloc[last])}, were not written whole and are left out")
        frame, place = _without(last, frame, place, rest)
    tolerance = np.maximum(_TOLERANCE_US, _RELATIVE * duration)
    short, long = rest > tolerance, rest < -tolerance
    _say(told, rest)
    if long.any():
        ratio = np.divide(duration, duration - rest, out=np.ones_like(rest), where=long)
        frame = frame.assign(**{name: frame[name].to_numpy() * ratio[place] for name in _PARTS})
    return _with_rest(frame, place, steps, np.where(short, rest, 0.0)) if short.any() else frame


def _without(step: int, frame: pd.DataFrame, place: Ints, rest: Floats) -> tuple[pd.DataFrame, Ints]:
    """Phases but those of one step, of which only a part is there."""
    rest[step] = 0.0
    return frame[place != step].reset_index(drop=True), place[place != step]


def _say(told: Told, rest: Floats) -> None:
    short, long = rest > _WORTH_SAYING_US, rest < -_WORTH_SAYING_US
    if short.any():
        told.notes.append(
            f"the phases of {text.count(int(short.sum()), 'step')} left up to {text.duration(float(rest.max()))} of it: "
            "that stands under other"
        )
    if long.any():
        told.notes.append(
            f"the phases of {text.count(int(long.sum()), 'step')} were up to {text.duration(float(-rest.min()))} longer than "
            "it: they are shortened in proportion"
        )


def _with_rest(frame: pd.DataFrame, place: Ints, steps: pd.DataFrame, rest: Floats) -> pd.DataFrame:
    """Phases with what they leave of their steps under `other`."""
    is_other = frame["phase"].eq(OTHER).to_numpy()
    more = np.where(is_other, rest[place], 0.0)
    wall = frame["wall_us"].to_numpy()
    alike = (more <= _ALIKE_SHARE * steps["duration_us"].to_numpy()[place]) & (wall > 0)
    ratio = np.where(more > 0, np.where(alike, (wall + more) / np.where(wall > 0, wall, 1.0), np.nan), 1.0)
    frame = frame.assign(wall_us=wall + more, **{name: frame[name].to_numpy() * ratio for name in _PARTS[1:]})
    bare = rest > 0
    bare[place[is_other]] = False
    if not bare.any():
        return frame
    new = pd.DataFrame({"step": steps["step"].to_numpy()[bare], "phase": OTHER, "wall_us": rest[bare]})
    both = pd.concat([frame.assign(phase=frame["phase"].astype(object)), new], ignore_index=True)
    order = np.argsort(np.append(place, np.flatnonzero(bare)), kind="stable")
    both = both.iloc[order].reset_index(drop=True)
    return both.assign(phase=texts(both["phase"].to_list()))
