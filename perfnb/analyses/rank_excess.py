"""What the rank with the most work has over the mean of all ranks in each step, and what that excess looks like."""

from __future__ import annotations

from math import exp, lgamma, log
from typing import Final

import pandas as pd

FEWEST_STEPS: Final = 10
"""Steps that a statement about ranks rests on: with fewer, the worst of several is worst by chance (detectors.md, section 3)."""

INPUT_SHARE: Final = 0.80
"""Share of a rank's excess that its wait for data has to cover: TraceML 0.5.0 calls a straggler an input straggler from there."""

LARGEST_P: Final = 0.001
"""Probability of being worst that often by chance, from which on a rank is not called slow."""

COLUMNS: Final = ("rank", "step", "duration_us", "work_us", "mean_work_us", "lost_us", "input_excess_us", "causes")


def why_not_comparable(work: pd.DataFrame, world_size: int | None) -> str:
    """Why the work of ranks cannot be compared; empty where it can.

    Parameters
    ----------
    work
        As `perfnb.work.rank_work` returns it.
    world_size
        Ranks of the job, None where unknown.

    Examples
    --------
    >>> why_not_comparable(pd.DataFrame({"rank": [0], "step": [1], "with_peers_us": [0.0]}), 4)
    '1 of 4 ranks was read: read all of them together'
    >>> why_not_comparable(pd.DataFrame({"rank": [0], "step": [1], "with_peers_us": [0.0]}), 1)
    'the job has one rank'
    """
    ranks = work["rank"].nunique()
    if world_size and ranks < world_size:
        return f"{ranks} of {world_size} ranks {'was' if ranks == 1 else 'were'} read: read all of them together"
    if ranks < 2:  # noqa: PLR2004 - a comparison needs two
        return "the job has one rank"
    steps = int(_of_all_ranks(work)["step"].nunique())
    if steps < FEWEST_STEPS:
        return f"{steps} {'step' if steps == 1 else 'steps'} of all ranks, {FEWEST_STEPS} are needed: record more"
    if not (work["with_peers_us"] > 0).any():
        return "nothing was seen of what the ranks exchange, so who waits for whom is not known: record(trace=5) on every rank"
    return ""


def rank_excess(work: pd.DataFrame) -> pd.DataFrame:
    """Excess of the rank with the most work over the mean of all ranks, in each step.

    Parameters
    ----------
    work
        As `perfnb.work.rank_work` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per step that all ranks have: rank (the one with the most work), step, duration_us, work_us, mean_work_us,
        lost_us (the excess), input_excess_us (what it waits for data longer than the mean) and causes: "input" where waiting for
        data covers 80 % of what that rank has in excess over all its steps, "slow" where the same rank is worst more often than
        chance would have it, else "changing".

    Examples
    --------
    >>> work = pd.DataFrame({"rank": [0, 1], "step": 1, "duration_us": 9.0, "work_us": [4.0, 8.0], "input_us": [0.0, 4.0]})
    >>> rank_excess(work.assign(is_critical=[False, True]))[["rank", "lost_us", "input_excess_us", "causes"]]
       rank  lost_us  input_excess_us causes
    0     1      2.0              2.0  input
    """
    whole = _of_all_ranks(work)
    means = whole.groupby("step")[["work_us", "input_us"]].transform("mean")
    rows = whole.assign(
        mean_work_us=means["work_us"],
        lost_us=whole["work_us"] - means["work_us"],
        input_excess_us=(whole["input_us"] - means["input_us"]).clip(lower=0.0),
    )
    rows = rows[rows["is_critical"].to_numpy(dtype=bool)].reset_index(drop=True)
    rows = rows.assign(input_excess_us=rows[["input_excess_us", "lost_us"]].min(axis=1))
    sums = rows.groupby("rank")[["lost_us", "input_excess_us"]].sum()
    starved = sums.index[(sums["input_excess_us"] >= INPUT_SHARE * sums["lost_us"]) & (sums["input_excess_us"] > 0)]
    is_input = rows["rank"].isin(starved)
    slow = slow_rank_of(rows["rank"], whole["rank"].nunique())
    causes = pd.Series("changing", index=rows.index).mask(rows["rank"].isin([slow]), "slow").mask(is_input, "input")
    return rows.assign(causes=causes)[list(COLUMNS)]


def slow_rank_of(worst: pd.Series, ranks: int) -> int | None:
    """The rank that is worst in at least (1 + 1/R)/2 of the steps, where chance would give that with p < .001; else None.

    Half-way between chance (1/R) and always: 1/2 would be chance for two ranks.

    Examples
    --------
    >>> slow_rank_of(pd.Series([1] * 12), 2)
    1
    >>> slow_rank_of(pd.Series([0, 1] * 6), 2) is None
    True
    """
    if worst.empty:
        return None
    counts, steps = worst.value_counts(), len(worst)
    often, rank = int(counts.iloc[0]), int(counts.index[0])
    is_slow = often >= (1 + 1 / ranks) / 2 * steps and _chance(often, steps, 1 / ranks) < LARGEST_P
    return rank if is_slow else None


def _chance(often: int, steps: int, share: float) -> float:
    """Probability that a rank is worst that often by chance (binomial; in logarithms, which long runs do not overflow)."""
    ways = [lgamma(steps + 1) - lgamma(k + 1) - lgamma(steps - k + 1) for k in range(often, steps + 1)]
    return sum(
        exp(way + k * log(share) + (steps - k) * log(1 - share)) for way, k in zip(ways, range(often, steps + 1), strict=True)
    )


def _of_all_ranks(work: pd.DataFrame) -> pd.DataFrame:
    return work[work.groupby("step")["rank"].transform("nunique").eq(work["rank"].nunique())]
