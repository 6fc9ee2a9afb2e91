"""Clocks of the ranks brought together by their collectives, whose ends coincide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.analyses.arrivals import LARGEST_RESIDUAL_US
from perfnb.analyses.matched_calls import CROSS_RANK_TIMES, SYNCHRONOUS, matched_calls
from perfnb.findings import NotMeasured
from perfnb.run import Run

FEWEST_MATCHES: Final = 3
FEWEST_FOR_DRIFT: Final = 10
SHORTEST_FOR_DRIFT_US: Final = 1e6

_MOST_POINTS: Final = 300  # pairs grow with the square: of more matches as many evenly spaced ones give the slope
_COLUMNS: Final = ("rank", "matches", "offset_us", "drift_us_per_s")


@dataclass(frozen=True, slots=True, eq=False)
class ClockAlignment:
    """How far each rank's clock was off, and how well the ranks agree once it is taken out.

    Attributes
    ----------
    ranks
        One row per rank with matches: rank, matches (collectives used), offset_us (its clock minus the ranks' median, at the
        first match) and drift_us_per_s (how much that grows per second; 0 where there are too few matches to tell).
    matches
        Number of collectives used.
    residual_us
        90th percentile of the spread of their ends over the ranks after alignment; NaN without matches.
    unmeasured
        Why times of two ranks cannot be compared; None where they can.
    """

    ranks: pd.DataFrame
    matches: int
    residual_us: float
    unmeasured: NotMeasured | None


def align_clocks(run: Run) -> tuple[Run, ClockAlignment]:
    """The run with all ranks on one clock, and how far each was off.

    No rank can leave an all-reduce, all-gather, reduce-scatter, all-to-all or barrier before all have entered, so the ends of
    one call coincide. A rank's offset is the median of (its end - median end over the ranks); with 10 or more matches over at
    least 1 s also a drift, the Theil-Sen slope (Theil 1950, Sen 1968) of that difference over time. Calls that all ranks share
    are used where there are 3 or more, else those of every group, over and over until no clock moves.

    Parameters
    ----------
    run
        A run of several ranks with collectives.

    Returns
    -------
    tuple of Run and ClockAlignment
        The run as it was, with the reason in `missing["cross_rank_times"]`, where there are fewer than 3 matches or the ends
        still lie over 100 us apart; otherwise with all its tables shifted, and a note.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = table_from_text(
    ...     "collectives",
    ...     '''rank group collective group_size start_us duration_us clock
    ...                                         0    dp    all_reduce 2          0        10          device
    ...                                         1    dp    all_reduce 2          4        10          device
    ...                                         0    dp    all_reduce 2          20       10          device
    ...                                         1    dp    all_reduce 2          24       10          device
    ...                                         0    dp    all_reduce 2          40       10          device
    ...                                         1    dp    all_reduce 2          44       10          device''',
    ... )
    >>> aligned, clocks = align_clocks(Run(collectives=calls))
    >>> clocks.ranks["offset_us"].tolist(), clocks.residual_us, aligned.collectives["start_us"].tolist()[:2]
    ([-2.0, 2.0], 0.0, [2.0, 2.0])
    """
    known = {name: reason for name, reason in run.missing.items() if name != CROSS_RANK_TIMES}
    ends = _ends(run)
    if ends.empty or ends["call"].nunique() < FEWEST_MATCHES:
        found = 0 if ends.empty else int(ends["call"].nunique())
        reason = f"{text.count(found, 'collective')} matched across ranks, clocks need {FEWEST_MATCHES}"
        return _refused(run, known, ClockAlignment(pd.DataFrame(columns=list(_COLUMNS)), found, float("nan"), None), reason)
    origin, offsets = float(ends["end_us"].min()), _offsets(ends)
    moved = _moved(ends["end_us"].to_numpy(), ends["rank"].to_numpy(), offsets, origin)
    spread = pd.Series(moved).groupby(ends["call"].to_numpy()).agg(np.ptp)
    alignment = ClockAlignment(offsets.reset_index(), int(ends["call"].nunique()), float(np.quantile(spread, 0.9)), None)
    if offsets["matches"].min() < FEWEST_MATCHES:
        few = offsets.index[int(offsets["matches"].argmin())]
        return _refused(
            run, known, alignment, f"rank {few} has {offsets['matches'].min()} matched collectives, needs {FEWEST_MATCHES}"
        )
    if alignment.residual_us > LARGEST_RESIDUAL_US:
        reason = (
            f"aligned by {alignment.matches} collectives, their ends still lie {text.duration(alignment.residual_us)} apart "
            f"on the ranks (9 in 10 within; {LARGEST_RESIDUAL_US:.0f} us would do)"
        )
        return _refused(run, known, alignment, reason)
    note = (
        f"clocks of {len(offsets)} ranks aligned by {alignment.matches} collectives: "
        f"shifted by up to {text.duration(float(offsets['offset_us'].abs().max()))}, "
        f"9 in 10 then end within {text.duration(alignment.residual_us)}"
    )
    aligned = replace(
        run,
        steps=_shifted(run.steps, offsets, origin),
        host_ops=_shifted(run.host_ops, offsets, origin),
        device_ops=_shifted(run.device_ops, offsets, origin),
        collectives=_shifted(run.collectives, offsets, origin),
        allocations=_shifted(run.allocations, offsets, origin),
        missing=MappingProxyType(known),
        notes=(*run.notes, note),
    )
    return aligned, alignment


def _refused(run: Run, known: dict[str, str], alignment: ClockAlignment, reason: str) -> tuple[Run, ClockAlignment]:
    same = replace(run, missing=MappingProxyType({**known, CROSS_RANK_TIMES: reason}))
    return same, replace(alignment, unmeasured=NotMeasured("align_clocks", "imbalance", reason))


def _ends(run: Run) -> pd.DataFrame:
    """Call, rank and end of the matched calls that no rank can leave early; of the device's if there are any."""
    rows = matched_calls(run).rows
    rows = rows[rows["collective"].isin(SYNCHRONOUS)]
    on_device = rows[rows["clock"].eq("device")]
    rows = on_device if len(on_device) else rows
    calls = run.collectives.iloc[rows["row"].to_numpy()]
    ends = rows[["call", "rank"]].assign(end_us=(calls["start_us"] + calls["duration_us"]).to_numpy())
    shared = ends.groupby("call")["rank"].transform("size").eq(ends["rank"].nunique())
    return ends[shared] if ends.loc[shared, "call"].nunique() >= FEWEST_MATCHES else ends


def _offsets(ends: pd.DataFrame) -> pd.DataFrame:
    """Offset and drift of each rank; index rank."""
    call, rank = ends["call"].to_numpy(), ends["rank"].to_numpy()
    end, origin = ends["end_us"].to_numpy().copy(), float(ends["end_us"].min())
    ranks, counts = np.unique(rank, return_counts=True)
    offset, drift = np.zeros(len(ranks)), np.zeros(len(ranks))
    rows_of = [np.flatnonzero(rank == name) for name in ranks]
    everyone = len(ends) == len(ranks) * len(np.unique(call))
    for _ in range(1 if everyone else 10 * len(ranks)):  # a chain of groups hands a shift on by one group a turn
        middle = pd.Series(end).groupby(call).transform("median").to_numpy()
        step = 0.0
        for index, rows in enumerate(rows_of):
            time = middle[rows] - origin
            difference = end[rows] - middle[rows]
            long = len(rows) >= FEWEST_FOR_DRIFT and float(np.ptp(time)) >= SHORTEST_FOR_DRIFT_US
            slope = _slope(time, difference) if long else 0.0
            shift = float(np.median(difference - slope * time))
            end[rows] -= shift + slope * time
            offset[index] += shift
            drift[index] += slope
            step = max(step, float(np.abs(shift + slope * time).max()))
        if step < 1e-3:  # noqa: PLR2004 - a nanosecond
            break
    frame = pd.DataFrame({"matches": counts, "offset_us": offset, "drift_us_per_s": drift * 1e6}, index=ranks)
    return frame.rename_axis("rank")


def _slope(time: NDArray[np.float64], value: NDArray[np.float64]) -> float:
    """Theil-Sen slope: the median of the slopes of all pairs of points."""
    order = np.argsort(time, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), _MOST_POINTS)).astype(np.int64))]
    first, second = np.triu_indices(len(chosen), 1)
    apart = time[chosen[second]] - time[chosen[first]]
    rise = value[chosen[second]] - value[chosen[first]]
    return float(np.median(rise[apart > 0] / apart[apart > 0])) if (apart > 0).any() else 0.0


def _moved(time: NDArray[np.float64], rank: NDArray[np.int64], offsets: pd.DataFrame, origin: float) -> NDArray[np.float64]:
    """Times of the ranks' clocks on the common clock: own = common + offset + drift x (common - origin)."""
    index = offsets.index.get_indexer(pd.Index(rank))
    known = index >= 0
    offset = np.where(known, offsets["offset_us"].to_numpy()[index], 0.0)
    drift = np.where(known, offsets["drift_us_per_s"].to_numpy()[index] / 1e6, 0.0)
    return (time - origin - offset) / (1.0 + drift) + origin


def _shifted(table: pd.DataFrame, offsets: pd.DataFrame, origin: float) -> pd.DataFrame:
    """The table with its times on the common clock; ranks without an offset keep theirs."""
    rank = table["rank"].to_numpy()
    if "time_us" in table:
        return table.assign(time_us=_moved(table["time_us"].to_numpy(), rank, offsets, origin))
    start, duration = table["start_us"].to_numpy(), table["duration_us"].to_numpy()
    rate = 1.0 + pd.Series(rank).map(offsets["drift_us_per_s"]).fillna(0.0).to_numpy() / 1e6
    moved = table.assign(start_us=_moved(start, rank, offsets, origin), duration_us=duration / rate)
    if "launch_us" not in table:
        return moved
    return moved.assign(launch_us=_moved(table["launch_us"].to_numpy(), rank, offsets, origin))
