"""The same call of a collective on every rank of its group, side by side: what all questions across ranks start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.run import Run

POINT_TO_POINT: Final = ("send", "recv", "send_recv")
"""Types in which not every rank of the group takes part: their starts say nothing about the group."""

SYNCHRONOUS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier")
"""Types that no rank can leave before every rank has entered: their ends coincide."""

CROSS_RANK_TIMES: Final = "cross_rank_times"
"""Key of `Run.missing` that says why times of two ranks cannot be compared."""

_COLUMNS: Final = ("call", "rank", "group", "sequence", "collective", "clock", "group_code", "row")


@dataclass(frozen=True, slots=True, eq=False)
class MatchedCalls:
    """Calls that every rank of their group recorded.

    Attributes
    ----------
    rows
        One row per (call, rank), sorted by call, then rank: call (number), rank, group, sequence, collective, clock,
        group_code (number of the group), row (position in `run.collectives`).
    left_out
        A sentence for each kind of call that is not among them, and why.
    assumed
        A sentence for each thing that was assumed in matching.
    groups_overlap
        Whether a rank is in more than one group: a wait in one may be the cause of its late arrival in another.
    """

    rows: pd.DataFrame
    left_out: tuple[str, ...]
    assumed: tuple[str, ...]
    groups_overlap: bool

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """Position in `rows` at which each call begins, in order of their numbers."""
        return np.flatnonzero(np.diff(self.rows["call"].to_numpy(), prepend=-1)).astype(np.int64)


def matched_calls(run: Run) -> MatchedCalls:
    """Calls of collectives that every rank of their group recorded, matched by group, sequence number and type.

    The sequence number is the recorded one, else the call's position in start order within its rank, group and stream.
    Where no group was recorded, the calls on one stream (the first, the second, ... of every rank) are taken for one group
    of all ranks, provided that every rank has as many.

    Parameters
    ----------
    run
        A run of several ranks with collectives.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = table_from_text(
    ...     "collectives",
    ...     '''rank group collective group_size start_us duration_us clock
    ...                                         0    dp    all_reduce 2          0        9           device
    ...                                         1    dp    all_reduce 2          4        5           device
    ...                                         0    dp    send       2          9        5           device
    ...                                         1    dp    recv       2          9        5           device''',
    ... )
    >>> matched = matched_calls(Run(collectives=calls))
    >>> matched.rows[["call", "rank", "row"]].to_numpy().tolist(), matched.left_out
    ([[0, 0, 0], [0, 1, 1]], ('2 calls of send or receive: a wait in one may be why a rank is late, ...',))
    """
    calls = _numbered(run.collectives)
    groups = _groups(calls, run)
    left_out, assumed = _reasons(groups), []
    is_sound = np.array([not group.reason for group in groups], dtype=bool)
    implied = sum(group.calls for group in groups if group.is_implied and not group.reason)
    if implied:
        assumed.append(
            f"{text.count(implied, 'call')} without a recorded group: those on one stream taken for one group of all ranks"
        )
    calls = calls[is_sound[calls["group_code"].to_numpy()]] if len(calls) else calls
    pairwise = calls["collective"].isin(POINT_TO_POINT).to_numpy(dtype=bool)
    unknown = calls["collective"].isna().to_numpy()
    for rows, what in (
        (pairwise, "send or receive: a wait in one may be why a rank is late, that is not untangled here"),
        (unknown, "unknown type: it may be a send or receive"),
    ):
        if rows.any():
            left_out.append(f"{text.count(int(rows.sum()), 'call')} of {what}")
    whole, incomplete = _complete(calls[~(pairwise | unknown)], groups)
    if incomplete:
        left_out.append(f"{text.count(incomplete, 'call')} that not every rank of the group recorded")
    code, rank = whole["group_code"].to_numpy(), whole["rank"].to_numpy()
    memberships = np.unique(np.stack([rank, code]), axis=1)[0]
    overlap = len(memberships) > len(np.unique(memberships))
    return MatchedCalls(whole[list(_COLUMNS)], tuple(left_out), tuple(assumed), overlap)


@dataclass(frozen=True, slots=True)
class _Group:
    """A group as its calls show it: how many ranks it has, and why its calls cannot be matched (empty: they can)."""

    calls: int
    size: int
    is_implied: bool
    reason: str


def _numbered(collectives: pd.DataFrame) -> pd.DataFrame:
    """The calls in start order with group_code (of a group, its members and its clock) and a sequence number each."""
    order = np.lexsort((collectives["start_us"].to_numpy(), collectives["rank"].to_numpy()))
    calls = collectives.iloc[order]
    rank = calls["rank"].to_numpy()
    stream = calls["stream"].to_numpy(dtype="float64", na_value=-1.0)
    group, members, clock = (pd.factorize(calls[name])[0] for name in ("group", "members", "clock"))
    nth_stream = np.where(group < 0, _rank_within(np.stack([rank, clock]), stream), 0)
    code = _codes(group, members, clock, nth_stream)
    position = _occurrence(_codes(rank, code, stream))
    recorded = calls["sequence"].to_numpy(dtype="float64", na_value=np.nan)
    return pd.DataFrame(
        {
            "rank": rank,
            "group": calls["group"].array,
            "members": calls["members"].array,
            "group_size": calls["group_size"].array,
            "collective": calls["collective"].array,
            "clock": calls["clock"].array,
            "sequence": np.where(np.isnan(recorded), position, recorded).astype(np.int64),
            "group_code": code,
            "row": order.astype(np.int64),
        }
    )


def _groups(calls: pd.DataFrame, run: Run) -> list[_Group]:
    """The group of each group_code."""
    code, rank = calls["group_code"].to_numpy(), calls["rank"].to_numpy()
    everyone = max(run.world_size or 0, len(np.unique(rank)))
    order = np.lexsort((rank, code))
    found = []
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(order) else []:
        head = calls.iloc[rows[0]]
        listed = str(head["members"]).split(",") if isinstance(head["members"], str) else []
        sizes = calls["group_size"].array[rows].dropna()
        size = len(listed) or (int(sizes.max()) if len(sizes) else everyone)
        starts = np.flatnonzero(np.diff(rank[rows], prepend=rank[rows[0]] - 1))
        counts = np.diff(np.append(starts, len(rows)))
        is_implied = bool(pd.isna(head["group"]))
        name = "with no recorded group" if is_implied else f"of group {head['group']}"
        by_position = not np.minimum.reduceat(calls["sequence"].to_numpy()[rows], starts).any()
        found.append(_Group(len(rows), size, is_implied, _why_not(name, size, counts, by_position=by_position)))
    return found


def _why_not(name: str, size: int, counts: NDArray[np.int64], *, by_position: bool) -> str:
    """Reason why the calls of a group cannot be matched; `counts` has the number of calls of each rank that was read."""
    if len(counts) < size:
        return f"{name}: {len(counts)} of its {size} ranks were read"
    if size < 2:  # noqa: PLR2004 - a rank alone waits for nobody
        return f"{name}: one rank alone"
    if len(counts) > size:
        return f"{name}: {len(counts)} ranks use this name, a group of it has {size}: which rank is in which is not recorded"
    if by_position and counts.min() < counts.max():
        few, many = counts.min(), counts.max()
        return f"{name}: {few} on one rank, {many} on another, and no recorded sequence number to match them by"
    return ""


def _reasons(groups: list[_Group]) -> list[str]:
    """A sentence for each reason that keeps groups out, with the number of calls."""
    calls: dict[str, int] = {}
    for group in groups:
        if group.reason:
            calls[group.reason] = calls.get(group.reason, 0) + group.calls
    return [f"{text.count(number, 'call')} {reason}" for reason, number in calls.items()]


def _complete(calls: pd.DataFrame, groups: list[_Group]) -> tuple[pd.DataFrame, int]:
    """Rows of the calls that as many ranks recorded as their group has, with a number per call; and how many rows are not."""
    code, rank = calls["group_code"].to_numpy(dtype=np.int64), calls["rank"].to_numpy(dtype=np.int64)
    kind = pd.factorize(calls["collective"])[0]
    key = _codes(code, calls["sequence"].to_numpy(), kind)
    call = _codes(key, _occurrence(_codes(key, rank)))  # one number may stand for several kernels
    sizes = np.array([group.size for group in groups], dtype=np.int64)
    is_whole = np.bincount(call, minlength=1)[call] == (sizes[code] if len(code) else code)
    rows = np.flatnonzero(is_whole)
    rows = rows[np.lexsort((rank[rows], call[rows]))]
    return calls.iloc[rows].assign(call=_codes(call[rows])).reset_index(drop=True), len(calls) - len(rows)


def _codes(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Number of each row's combination of keys, in their sorted order."""
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        values, inverse = np.unique(key, return_inverse=True)
        code = np.unique(code * max(len(values), 1) + inverse, return_inverse=True)[1].astype(np.int64)
    return code


def _occurrence(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many rows with the same key stand before each row."""
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    found = np.empty(len(key), dtype=np.int64)
    found[order] = np.arange(len(key)) - np.repeat(begins, np.diff(np.append(begins, len(key))))
    return found


def _rank_within(group: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of each row's value among the different values of its group: 0, 1, ..."""
    of_group = _codes(*group)
    pair = _codes(of_group, value)
    pairs, at = np.unique(pair, return_index=True)
    place = _occurrence(of_group[at])
    return place[np.searchsorted(pairs, pair)]
