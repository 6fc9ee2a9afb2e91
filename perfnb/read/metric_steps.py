"""Which step each row of a log belongs to: numbering, joining rows of one step, resumed trainings, ranks that cannot be told."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Floats
from perfnb.read.metric_meaning import meaning
from perfnb.read.metric_parts import Part
from perfnb.text import clean, count

Repeats = Literal["question", "restart", "latest"]
"""What a step may be that is there twice: rows of several ranks unless the log goes back to a step after its first; or also
unless it starts anew; or, where one rank alone writes such a log, what was written later."""

_OF_RANKS: Final = ("steps", "phases", "training")
_TIMES: Final = ("steps", "phases")
_MOST_RESUMES: Final = 50  # a log that goes back more often is not one training that was resumed


def with_steps(part: Part, rank: int | None, *, repeats: Repeats = "question") -> Part:
    """The rows of a training log, one per rank and step (and GPU), each with its rank and step, in that order.

    Parameters
    ----------
    part
        The log.
    rank
        Rank of a log that names none; 0 if None.
    repeats
        What a step may be that is there twice.

    Raises
    ------
    LogFormatError
        If rows of one step contradict each other, as those of several ranks do when no column names the rank.
    """
    made = part.taken(np.arange(part.size))
    if made.rank is not None and np.isnan(made.rank).any():
        made = _dropped(made, np.isnan(made.rank), "without a rank")
    if made.rank is None:
        made.rank = np.full(made.size, float(rank or 0))
    elif rank is not None and not (made.rank == rank).all():
        made = _dropped(made, made.rank != rank, f"of other ranks than {rank}")
    if made.step is None:
        made.step = _numbered(made)
        made.notes.append(f"{made.origin} has no column of steps: each row is a step, numbered from 0")
    elif np.isnan(made.step).any():
        made = _dropped(made, np.isnan(made.step), "without a step")
    if not made.size:
        message = f"{made.origin}: no row is left to read ({'; '.join(made.notes)})"
        raise LogFormatError(message)
    made = _one_row_per_step(made, repeats)
    keys = [made.step, made.rank] if made.gpu is None else [made.gpu, made.step, made.rank]
    return made.taken(np.lexsort([key for key in keys if key is not None]))


def _numbered(part: Part) -> Floats:
    keys = pd.DataFrame({"rank": part.rank})
    if part.gpu is not None:
        keys["gpu"] = part.gpu
    return np.asarray(keys.groupby(list(keys.columns), dropna=False).cumcount(), dtype=np.float64)


def _one_row_per_step(part: Part, repeats: Repeats) -> Part:
    if part.gpu is not None and part.rank is not None and len(np.unique(part.rank)) == 1:
        own = [(column.name, values) for column, values in part.found if column.meaning.quantity.table in _OF_RANKS]
        if _clash(own, pd.DataFrame({"rank": part.rank, "step": part.step})) is not None:
            part.rank = part.gpu
            part.notes.append("rows of one step differ by GPU in more than its samples: each GPU is read as a rank")
    keys = _keys(part)
    if not keys.duplicated().any():
        return part
    if _restarts_each_epoch(part, keys):
        ordered = part.taken(np.lexsort([key for key in (part.step, part.epoch, part.rank) if key is not None]))
        ordered.step = _numbered(ordered)
        ordered.notes.append("steps start anew in each epoch: numbered on from epoch to epoch, from 0")
        return ordered
    clash = _clash(_values(part), keys)
    if clash is None:
        return _joined(part, keys)
    resumed = _resumed(part, repeats)
    if resumed is not None:
        return _one_row_per_step(resumed, repeats)
    times = [(column.name, values) for column, values in part.found if column.meaning.quantity.table in _TIMES]
    if repeats != "latest" or _clash(times, keys) is not None:  # no trainer writes two times of one step
        raise LogFormatError(clash)
    part.notes.append("rows of one step contradict one another: of each column the last value counts")
    return _joined(part, keys)


def _keys(part: Part) -> pd.DataFrame:
    keys = {"rank": part.rank, "step": part.step}
    return pd.DataFrame(keys if part.gpu is None else {**keys, "gpu": part.gpu})


def _restarts_each_epoch(part: Part, keys: pd.DataFrame) -> bool:
    """Whether the same steps come again in every epoch, once."""
    if part.epoch is None or np.isnan(part.epoch).any() or (part.epoch != np.floor(part.epoch)).any():
        return False
    again = keys.assign(epoch=part.epoch)
    first = again.groupby(["rank", "epoch"])["step"].min()
    return not again.duplicated().any() and first.groupby("rank").nunique().max() == 1 and first.size > first.index.nlevels - 1


def _values(part: Part) -> list[tuple[str, Floats]]:
    """Columns of which rows of one step hold the same; further counters and clocks, as wandb's _step, go on within a step."""
    rest = [(name, values) for name, values in part.rest if not _is_counter(name, part.origin)]
    return [*((column.name, values) for column, values in part.found), *rest]


def _is_counter(name: str, origin: str) -> bool:
    found = meaning(name, origin)
    return found is not None and found.quantity.table == "row"


def _clash(columns: list[tuple[str, Floats]], keys: pd.DataFrame) -> str | None:
    """What to do about rows of one step that contradict each other; None where they complete one another."""
    group = keys.groupby(list(keys.columns), dropna=False, sort=False).ngroup().to_numpy()
    repeated = keys.duplicated(keep=False).to_numpy()
    for name, values in columns:
        known = repeated & np.isfinite(values)
        pairs = pd.DataFrame({"group": group[known], "value": values[known]}).drop_duplicates()
        twice = pairs.loc[pairs["group"].duplicated(), "group"]
        if twice.empty:
            continue
        step = int(keys["step"].to_numpy()[np.flatnonzero(group == twice.iloc[0])[0]])
        shown = ", ".join(f"{value:.6g}" for value in pairs.loc[pairs["group"].eq(twice.iloc[0]), "value"].iloc[:4])
        return (
            f"step {step} is there {int((group == twice.iloc[0]).sum())} times, with {clean(name, 80)!r} of {shown}: for "
            "a log of several ranks add a column rank, or read each rank's rows with rank=; read several trainings one by one"
        )
    return None


def _joined(part: Part, keys: pd.DataFrame) -> Part:
    """One row per key: of each column the last value that is there."""
    group = keys.groupby(list(keys.columns), dropna=False, sort=False).ngroup()
    rows = np.sort(np.unique(group.to_numpy()[::-1], return_index=True)[1])
    last = np.sort(len(group) - 1 - rows)
    order = group.to_numpy()[last]

    def latest(values: Floats) -> Floats:
        found = pd.Series(values).groupby(group.to_numpy()).last()
        return np.asarray(found.reindex(order).to_numpy(dtype="float64"))

    made = part.taken(last)
    for place, (column, values) in enumerate(part.found):
        kept = made.found[place][0]
        flagged = pd.Series(column.is_nan).groupby(group.to_numpy()).max().reindex(order).to_numpy(dtype=bool)
        kept.is_nan[:] = flagged
        made.found[place] = (kept, latest(values))
    made.rest = [(name, latest(values)) for name, values in part.rest]
    made.epoch = None if part.epoch is None else latest(part.epoch)
    return made


def _resumed(part: Part, repeats: Repeats) -> Part | None:
    """The rows that a training kept which went on from an earlier step; None where the log does not look like that."""
    kept = np.ones(part.size, dtype=np.bool_)
    said: list[str] = []
    assert part.step is not None and part.rank is not None  # noqa: S101, PT018 - set before
    for one in np.unique(part.rank):
        rows = np.flatnonzero(part.rank == one)
        steps = part.step[rows]
        falls = np.flatnonzero(np.diff(steps) < 0) + 1
        if repeats != "latest" and not _is_one_training(part, rows, falls, may_restart=repeats == "restart"):
            return None
        for fall in falls:
            again = rows[:fall][(steps[:fall] >= steps[fall]) & kept[rows[:fall]]]
            if not len(again):
                continue
            kept[again] = False
            said.append(f"rank {int(one)} went back to step {int(steps[fall])}: {count(len(again), 'row')} up to step "
                        f"{int(part.step[again].max())} from before are left out")  # fmt: skip
    if not said:
        return None
    made = part.taken(_places(kept))
    made.notes.append(f"resumed: {'; '.join(said[:5])}{f' and {len(said) - 5} more times' if len(said) > 5 else ''}")  # noqa: PLR2004 - fits a line
    return made


def _is_one_training(part: Part, rows: NDArray[np.intp], falls: NDArray[np.intp], *, may_restart: bool) -> bool:
    """Whether rows that go back to an earlier step can be those of a training that went on from there."""
    assert part.step is not None  # noqa: S101 - set before
    steps = part.step[rows]
    if len(falls) > _MOST_RESUMES:
        return False
    if part.time_us is not None and part.since_1970 and (part.time_us[rows[falls]] < part.time_us[rows[falls - 1]]).any():
        return False  # what goes on does so later
    restarts = steps[falls] <= steps[0]
    if not may_restart:
        return not restarts.any()
    stretches = np.split(steps, falls)
    # ranks whose rows are one after the other do the same steps; a training that starts anew seldom ends where it did before
    return not any(restarts[place] and np.array_equal(before, after) for place, (before, after) in enumerate(pairwise(stretches)))


def _dropped(part: Part, away: NDArray[np.bool_], why: str) -> Part:
    made = part.taken(_places(~away))
    made.notes.append(f"{part.origin}: {count(int(away.sum()), 'row')} {why} left out")
    return made


def _places(kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.flatnonzero(kept)
