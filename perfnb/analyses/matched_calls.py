"""The same call of a collective on every rank of its group, side by side: what all questions across ranks start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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

_COLUMNS: Final = ("call", "rank", "group", "sequence", "collective", "clock", "row")


@dataclass(frozen=True, slots=True, eq=False)
class MatchedCalls:
    """Calls that every rank of their group recorded.

    Attributes
    ----------
    rows
        One row per (call, rank), sorted by call, then rank: call (number), rank, group, sequence, collective, clock,
        row (position in `run.collectives`).
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
    ...                                         1    dp    send       2          9        5           device''',
    ... )
    >>> matched = matched_calls(Run(collectives=calls))
    >>> matched.rows[["call", "rank", "row"]].to_numpy().tolist(), matched.left_out
    ([[0, 0, 0], [0, 1, 1]], ('1 call of send or receive: not every rank of the group takes part',))
    """
    calls = _numbered(run.collectives)
    left_out, assumed = [], []
    groups = _groups(calls, run)
    for reason, number in groups[groups["reason"].ne("")].groupby("reason", sort=False)["calls"].sum().items():
        left_out.append(f"{text.count(int(number), 'call')} of {reason}")
    implied = int(groups.loc[groups["reason"].eq("") & groups["is_implied"], "calls"].sum())
    if implied:
        assumed.append(f"no group recorded with {text.count(implied, 'call')}: those on one stream taken for one group of all ranks")
    calls = calls[calls["group_code"].map(groups["reason"].eq("")).to_numpy(dtype=bool)]
    pairwise = calls["collective"].isin(POINT_TO_POINT).to_numpy(dtype=bool)
    unknown = calls["collective"].isna().to_numpy()
    for rows, what in (
        (pairwise, "send or receive: not every rank of the group takes part"),
        (unknown, "unknown type: it may be a send or receive"),
    ):
        if rows.any():
            left_out.append(f"{text.count(int(rows.sum()), 'call')} of {what}")
    calls = calls[~(pairwise | unknown)]
    calls, incomplete = _complete(calls, groups)
    if incomplete:
        left_out.append(f"{text.count(incomplete, 'call')} that not every rank of the group recorded")
    of_rank = calls[["rank", "group_code"]].drop_duplicates()["rank"]
    return MatchedCalls(calls[list(_COLUMNS)], tuple(left_out), tuple(assumed), bool(of_rank.duplicated().any()))


def _numbered(collectives: pd.DataFrame) -> pd.DataFrame:
    """The calls in start order with group_code (a group, its members, its clock) and a sequence number each."""
    order = np.lexsort((collectives["start_us"].to_numpy(), collectives["rank"].to_numpy()))
    calls = collectives.iloc[order].assign(row=order)
    stream = calls["stream"].astype("float64").fillna(-1.0)
    nth_stream = stream.groupby([calls["rank"], calls["clock"]], observed=True).rank(method="dense")
    keys = pd.DataFrame(
        {
            "group": pd.factorize(calls["group"])[0],
            "members": pd.factorize(calls["members"])[0],
            "clock": pd.factorize(calls["clock"])[0],
            "implied": np.where(calls["group"].isna(), nth_stream, 0.0),
        }
    )
    code = keys.groupby(list(keys.columns), sort=False).ngroup().to_numpy()
    calls = calls.assign(group_code=code, is_implied=calls["group"].isna().to_numpy())
    position = calls.groupby(["rank", "group_code", stream.to_numpy()], sort=False).cumcount().astype("Int64")
    return calls.assign(sequence=calls["sequence"].fillna(position))


def _groups(calls: pd.DataFrame, run: Run) -> pd.DataFrame:
    """One row per group_code: is_implied, calls, size, and the reason why its calls cannot be matched (empty: they can)."""
    per_rank = calls.groupby(["group_code", "rank"], as_index=False).agg(calls=("row", "size"), first=("sequence", "min"))
    groups = calls.groupby("group_code").agg(
        group=("group", "first"),
        members=("members", "first"),
        size=("group_size", "max"),
        is_implied=("is_implied", "first"),
        calls=("row", "size"),
    )
    groups["size"] = groups["size"].astype("float64")
    everyone = max(run.world_size or 0, calls["rank"].nunique())
    reasons, sizes = [], []
    ranks_of = {code: own for code, own in per_rank.groupby("group_code")}
    for code, group in groups.iterrows():
        own = ranks_of[code]
        listed = [int(rank) for rank in str(group["members"]).split(",")] if isinstance(group["members"], str) else None
        size = len(listed) if listed else int(group["size"]) if group["size"] == group["size"] else everyone
        sizes.append(size)
        reasons.append(_why_not(own, size, "calls without a group" if group["is_implied"] else f"group {group['group']}"))
    return groups.assign(size=sizes, reason=reasons)


def _why_not(own: pd.DataFrame, size: int, name: str) -> str:
    """Reason why the calls of a group cannot be matched; `own` has one row per rank: calls, first (sequence number)."""
    if len(own) < size:
        return f"{name}: {len(own)} of its {size} ranks were read"
    if size < 2:  # noqa: PLR2004 - a rank alone waits for nobody
        return f"{name}: one rank alone"
    if len(own) > size:
        return f"{name}: {len(own)} ranks use this name, a group of it has {size}: which rank is in which is not recorded"
    counts = own["calls"]
    if own["first"].eq(0).all() and counts.nunique() > 1:
        few, many = counts.min(), counts.max()
        return f"{name}: {few} calls on one rank, {many} on another, and no recorded sequence number to match them by"
    return ""


def _complete(calls: pd.DataFrame, groups: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Rows of the calls that as many ranks recorded as their group has, with a number per call; and how many rows are not."""
    keys = ["group_code", "sequence", "collective"]
    again = calls.groupby([*keys, "rank"], sort=False, observed=True).cumcount()  # one number may stand for several kernels
    call = calls.assign(again=again).groupby([*keys, "again"], sort=False, observed=True).ngroup().to_numpy()
    found = np.bincount(call, minlength=1)
    wanted = groups["size"].reindex(calls["group_code"]).to_numpy()
    is_whole = found[call] == wanted if len(call) else np.zeros(0, dtype=bool)
    whole, call = calls[is_whole], call[is_whole]
    order = np.lexsort((whole["rank"].to_numpy(), call))
    number = np.unique(call[order], return_inverse=True)[1] if len(order) else call
    return whole.iloc[order].assign(call=number.astype(np.int64)).reset_index(drop=True), int((~is_whole).sum())
