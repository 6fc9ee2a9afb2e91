"""Phases of a log's steps: times that no phase can have, phases that overlap, and what they leave of their step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Floats
from perfnb.read.metric_parts import Part
from perfnb.text import clean, count, duration, share

PHASES: Final = ("data", "transfer", "forward", "backward", "communication", "optimizer")
_TOLERANCE: Final = 0.01  # timers of phases and of the step are read at slightly different moments
_MOST_LONGER: Final = 0.2  # of the rows: more is no accident of timers
_SHOWN: Final = 40

Bools = NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class Phases:
    """Rows of table phases, communication that is no phase, why phases are missing, and notes."""

    frame: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["rank", "step", "phase", "wall_us"]))
    communication_us: Floats | None = None
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def phases_of(part: Part, length: Floats, known: Bools, without_steps: str | None) -> Phases:
    """Phases of the steps of a log with one row per rank and step.

    A step in which a phase has no time keeps NaN there and in phase other: averages leave it out (`perfnb.ledger.used_steps`).

    Parameters
    ----------
    part
        The log, from `with_steps`.
    length
        Time of each row's step in us.
    known
        Which rows have a step with a time and a moment.
    without_steps
        Why the log has no steps, None where it has some.

    Raises
    ------
    LogFormatError
        If phases are longer than their steps, as those in another unit are.
    """
    made = Phases()
    names = {column.meaning.quantity.column: column.name for column, _ in part.found if column.meaning.quantity.table == "phases"}
    if not names:
        made.missing["phases"] = (
            "the log has no times of phases: log data_loading_time, forward_time, backward_time, optimizer_time"
        )
        return made
    if not known.any():
        made.missing["phases"] = without_steps or "no step has a time"
        made.notes.append("times of phases without times of steps are left out")
        return made
    wall = _measured(part, known, made)
    if not wall:
        made.missing["phases"] = "; ".join(made.notes[-len(names) :])
        return made
    if "communication" in wall and len(wall) > 1 and _is_overlapped(wall, length, known):
        made.communication_us = wall.pop("communication")
        made.missing["phases.communication"] = (
            "with communication_time the phases are longer than their steps and without it they are not: communication overlaps "
            "other phases, and how much of it is exposed the log does not say; it is metric communication_us"
        )
        made.notes.append(made.missing["phases.communication"])
    table = _fitted({phase: values[known] for phase, values in wall.items()}, length[known], names, made)
    if np.isnan(table).any(axis=0).all():
        made.missing["phases"] = (
            f"no row has a time for each of its phases ({_listed(names, wall)}): log all of them in the same steps, or fewer"
        )
        made.missing |= {"loader": made.missing["phases"]} if "data" in wall else {}
        made.notes.append(made.missing["phases"])
        return made
    made.frame = _frame(part, known, wall, np.vstack([table, np.maximum(length[known] - table.sum(axis=0), 0.0)]))
    return made


def _measured(part: Part, known: Bools, made: Phases) -> dict[str, Floats]:
    """Times of each phase that has some, NaN where a value is none; the others are missing, with their reason."""
    found: dict[str, Floats] = {}
    for column, values in part.found:
        if column.meaning.quantity.table != "phases":
            continue
        phase, shown = column.meaning.quantity.column, clean(column.name, _SHOWN)
        is_time = np.isfinite(values) & (values >= 0.0)
        odd = int((~is_time & ~np.isnan(column.numbers)).sum())
        if (is_time & known).any():
            found[phase] = np.where(is_time, values, np.nan)
            if odd:
                made.notes.append(f"{shown}: {count(odd, 'row')} with a negative or infinite time, which is read as missing")
            continue
        why = f", and {count(odd, 'row')} with a negative or infinite one" if odd else ""
        reason = f"{shown} has no time of 0 or more in any step{why}, so it is not measured"
        made.missing[f"phases.{phase}"] = reason
        made.missing |= {"loader": reason} if phase == "data" else {}
        made.notes.append(reason)
    return {phase: found[phase] for phase in PHASES if phase in found}


def _fitted(wall: Mapping[str, Floats], step: Floats, names: Mapping[str, str], made: Phases) -> Floats:
    """Times of phases, one row per phase, that are no longer than their step; NaN where they are or where one is missing."""
    table = np.vstack(list(wall.values()))
    is_timed = ~np.isnan(table).all(axis=0)
    lacking = np.isnan(table).any(axis=0)
    if lacking.any() and not lacking.all():
        number = int(lacking.sum())
        often = [phase for phase, values in wall.items() if np.isnan(values).any()]
        made.notes.append(
            f"{number:,} of {len(step):,} rows lack{'s' if number == 1 else ''} {_listed(names, often)}: shares are of the others"
        )
    total = np.nansum(table, axis=0)
    longer = total > (1.0 + _TOLERANCE) * step
    timed = int(is_timed.sum())
    if longer.sum() > _MOST_LONGER * timed:
        raise LogFormatError(_too_long(wall, step, names, f"{share(float(longer.sum() / timed))} of {count(timed, 'row')}"))
    if longer.any():
        made.notes.append(
            f"phases are longer than their step by more than 1 % in {count(int(longer.sum()), 'row')} of {timed:,}: "
            "there the phases are missing"
        )
    table[:, longer] = np.nan
    over = (total > step) & ~longer
    if over.any():
        made.notes.append(f"phases longer than their step by up to 1 % are scaled to it, in {count(int(over.sum()), 'row')}")
        table[:, over] *= (step / np.where(total > 0.0, total, 1.0))[over]
    return table


def _too_long(wall: Mapping[str, Floats], step: Floats, names: Mapping[str, str], where: str) -> str:
    sums = ", ".join(f"{clean(names[phase], _SHOWN)} {duration(float(np.nanmedian(values)))}" for phase, values in wall.items())
    return (
        f"phases are longer than their step in {where}: medians are {sums}, of "
        f"a step of {duration(float(np.median(step)))}: one of the units is wrong, pass the true ones, as "
        f'units={{"{clean(names[next(iter(wall))], _SHOWN)}": "ms"}}'
    )


def _frame(part: Part, known: Bools, wall: Mapping[str, Floats], times: Floats) -> pd.DataFrame:
    assert part.rank is not None and part.step is not None  # noqa: S101, PT018 - with_steps set them
    order: list[str] = [*wall, "other"]
    return pd.DataFrame(
        {
            "rank": np.repeat(part.rank[known].astype(np.int64), len(order)),
            "step": np.repeat(part.step[known].astype(np.int64), len(order)),
            "phase": pd.Categorical(np.tile(order, int(known.sum())), categories=order),
            "wall_us": times.T.ravel(),
        }
    )


def _is_overlapped(wall: Mapping[str, Floats], length: Floats, known: Bools) -> bool:
    """Whether communication runs beside other phases: they fit in their steps without it, it fits alone, both do not."""
    table = np.vstack([values for phase, values in wall.items() if phase != "communication"])
    complete = known & ~np.isnan(table).any(axis=0) & ~np.isnan(wall["communication"])
    if not complete.any():
        return False
    rest, own = table[:, complete].sum(axis=0), wall["communication"][complete]
    most = (1.0 + _TOLERANCE) * length[complete]
    fits = [float((values > most).mean()) <= _MOST_LONGER for values in (rest, own, rest + own)]
    return fits[0] and fits[1] and not fits[2]


def _listed(names: Mapping[str, str], phases: Mapping[str, Floats] | list[str]) -> str:
    return ", ".join(clean(names[phase], _SHOWN) for phase in phases)
