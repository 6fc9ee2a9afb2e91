"""Ranks that the others wait for at collectives: how much waiting each causes per step, and which cause too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.analyses.arrivals import arrivals_of, summary_of
from perfnb.analyses.matched_calls import MatchedCalls, matched_calls
from perfnb.run import Run

SMALLEST_SHARE: Final = 0.01
"""A rank that costs the ranks that it shares a group with less than this share of a step is no straggler (a prior)."""

FEWEST_STEPS: Final = 5
"""From as many steps on, a straggler must be one in most of them."""

CAUSED_COLUMNS: Final = ("rank", "steps", "steps_over", "last_calls", "caused_us", "caused_share", "held_up_us", "step_share")


def stragglers(run: Run) -> pd.DataFrame:
    """Ranks that the others wait for, worst first; no rows where there is none, `stragglers_summary` tells which it is.

    A rank is one if it holds up the ranks that it shares a group with by over 1 % of the step on average and, where 5 or more
    steps were recorded, in most of them.

    Parameters
    ----------
    run
        A run of several ranks with collectives, on one clock or as `align_clocks` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per straggler: columns of `caused_waits`.
    """
    return _answer(run).stragglers


def caused_waits(run: Run) -> pd.DataFrame:
    """Waiting at collectives that each rank causes, by arrival.

    Parameters
    ----------
    run
        A run of several ranks with collectives, on one clock or as `align_clocks` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per rank with matched calls, in order: rank; steps (number that the means rest on; 0: no steps recorded, the
        figures are those of the whole recording); steps_over (in how many of them it costs over 1 % of the step); last_calls
        (calls per step in which it came last and others waited); caused_us (per step, summed over the ranks that wait);
        caused_share (of all waiting); held_up_us (per step, mean over the ranks that share a group with it); step_share
        (held_up_us over the duration of the step). Empty where `arrivals` is.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> calls = table_from_text(
    ...     "collectives",
    ...     '''rank group collective group_size start_us duration_us clock
    ...                                         0    dp    all_reduce 2          0        9           device
    ...                                         1    dp    all_reduce 2          4        5           device''',
    ... )
    >>> caused_waits(Run(collectives=calls))[["rank", "steps", "caused_us", "caused_share"]]
       rank  steps  caused_us  caused_share
    0     0      0        0.0           0.0
    1     1      0        4.0           1.0
    """
    return _answer(run).caused


def stragglers_summary(run: Run) -> str:
    """Whether there are stragglers, none, or it could not be measured, and what the answer rests on, in sentences.

    Examples
    --------
    >>> stragglers_summary(Run())
    'Not measured: no collective was recorded.'
    """
    return _answer(run).summary


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    caused: pd.DataFrame
    stragglers: pd.DataFrame
    summary: str


def _answer(run: Run) -> _Answer:
    matched = matched_calls(run)
    found = arrivals_of(run, matched)
    looked_at = summary_of(run, matched)
    caused, basis = _caused(run, found, matched)
    chosen = caused["step_share"].gt(SMALLEST_SHARE)
    often = caused["steps_over"].gt(caused["steps"] / 2) | caused["steps"].lt(FEWEST_STEPS)
    late = caused[chosen & often].sort_values("caused_us", ascending=False, ignore_index=True)
    if caused.empty:
        return _Answer(caused, late, f"{looked_at} {basis}".strip())
    unit = "a step" if caused["steps"].iloc[0] else "in all"
    named = [
        f"rank {rank} causes {text.duration(us)} of waiting {unit} ({text.share(share)} of all waiting)"
        for rank, us, share in zip(late["rank"], late["caused_us"], late["caused_share"], strict=True)
    ]
    if named:
        verdict = f"Stragglers: {'; '.join(named)}."
    else:
        most = caused.iloc[int(caused["step_share"].argmax())]
        verdict = (
            f"No straggler: rank {int(most['rank'])} holds the others up most, by {text.share(float(most['step_share']))} "
            f"of {'a step' if most['steps'] else 'the recording'}."
        )
    return _Answer(caused, late, f"{verdict} {basis} {looked_at}")


def _caused(run: Run, found: pd.DataFrame, matched: MatchedCalls) -> tuple[pd.DataFrame, str]:
    """Table `caused_waits`, and the steps that it rests on in words."""
    ranks, last = np.unique(found["rank"].to_numpy()), found["last_rank"].to_numpy()
    if not len(found):
        return pd.DataFrame(columns=list(CAUSED_COLUMNS), dtype="float64"), ""
    window, numbers, durations, basis = _windows(run, found)
    chosen = window >= 0
    if not chosen.any():
        return pd.DataFrame(columns=list(CAUSED_COLUMNS), dtype="float64"), basis
    culprit, shape = np.searchsorted(ranks, last), (len(durations), len(ranks))
    cell = (window * len(ranks) + culprit)[chosen]
    waits = found["wait_us"].to_numpy()[chosen]
    caused = np.bincount(cell, weights=waits, minlength=shape[0] * shape[1]).reshape(shape)
    waiting = found["call"].to_numpy()[chosen & (found["wait_us"].to_numpy() > 0)]
    blamed = found.iloc[np.flatnonzero(np.isin(found["call"], waiting) & chosen & (found["rank"].to_numpy() == last))]
    held_up = caused / _peers(matched, ranks)
    total = caused.sum()
    frame = pd.DataFrame(
        {
            "rank": ranks,
            "steps": numbers,
            "steps_over": (held_up > SMALLEST_SHARE * durations[:, None]).sum(axis=0),
            "last_calls": np.bincount(np.searchsorted(ranks, blamed["rank"]), minlength=len(ranks)) / len(durations),
            "caused_us": caused.mean(axis=0),
            "caused_share": caused.sum(axis=0) / total if total else np.zeros(len(ranks)),
            "held_up_us": held_up.mean(axis=0),
            "step_share": held_up.mean(axis=0) / durations.mean(),
        }
    )
    return frame[list(CAUSED_COLUMNS)], basis


def _windows(run: Run, found: pd.DataFrame) -> tuple[NDArray[np.int64], int, NDArray[np.float64], str]:
    """Number of the used step of each arrival (-1: none), how many steps, their durations, and which they are in words."""
    if run.steps.empty:
        low, high = found["start_us"].min(), (found["start_us"] + found["duration_us"]).max()
        return np.zeros(len(found), dtype=np.int64), 0, np.array([high - low]), "No steps recorded: over the whole recording."
    steps = run.steps[run.steps["rank"].isin(found["rank"].unique())]
    per_step = steps.groupby("step").agg(duration_us=("duration_us", "mean"), is_edge=("is_edge", "any"))
    inner = per_step[~per_step["is_edge"]]
    used = inner if len(inner) >= 2 else per_step  # noqa: PLR2004 - traces.md, section 6: two or more have to remain
    numbers = found["step"].to_numpy(dtype=np.int64, na_value=np.iinfo(np.int64).min)
    index = np.searchsorted(used.index.to_numpy(), numbers).clip(max=len(used) - 1)
    window = np.where(used.index.to_numpy()[index] == numbers, index, -1)
    outside = found.loc[found["step"].isna().to_numpy(), "call"].nunique()
    basis = f"Over {len(used)} of {text.count(len(per_step), 'step')}" + (
        f"; {text.count(outside, 'call')} launched outside the steps not counted." if outside else "."
    )
    return window, len(used), used["duration_us"].to_numpy(), basis


def _peers(matched: MatchedCalls, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of other ranks that each rank shares a group with."""
    rank, code = np.searchsorted(ranks, matched.rows["rank"].to_numpy()), matched.rows["group_code"].to_numpy()
    shares = np.zeros((len(ranks), len(ranks)), dtype=bool)
    for group in np.unique(code):
        members = np.unique(rank[code == group])
        shares[np.ix_(members, members)] = True
    others: NDArray[np.int64] = np.maximum(shares.sum(axis=1, dtype=np.int64) - 1, 1)
    return others
