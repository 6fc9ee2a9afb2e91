"""Detector of one rank that has more work than the others at nearly every step."""

from __future__ import annotations

from math import comb
from typing import Any, Final

import pandas as pd

from perfnb.detector import Unmeasured, detector, example
from perfnb.work import rank_work

_FEWEST_STEPS: Final = 10
_LARGEST_P: Final = 0.001


def _text(least_work: int, *, worst_alternates: bool = False) -> dict[str, Any]:
    """Twelve steps of 100 us of two ranks: rank 1 works all the time, rank 0 as given and waits for the rest."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us"]
    for step in range(12):
        swap = worst_alternates and step % 2 == 1
        for rank, work in enumerate((100, least_work) if swap else (least_work, 100)):
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} forward {work}", f"{rank} {step} communication {100 - work}"]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


@detector(
    family="imbalance",
    title="Waiting for the rank with the most work",
    needs=("collectives",),
    injected_by="uneven_rank",
    source="same rank worst in (1 + 1/R)/2 of steps, half-way from chance to always: a control .57, a slow rank 1.00 (recorded)",
    not_to_confuse_with=("exposed_communication", "data_stall", "python_overhead"),
    examples=(
        example(
            "rank 1 works 100 us, rank 0 works 60 us in every step: 20 of 100 us over the mean",
            lost_share=0.20,
            signals=("collectives",),
            world_size=2,
            **_text(60),
        ),
        example(
            "rank 0 works 92 us, rank 1 100 us: 4 of 100 us over the mean stay under the threshold",
            lost_share=0.04,
            signals=("collectives",),
            world_size=2,
            **_text(92),
        ),
        example(
            "the worst rank changes from step to step: that is uneven batches, not a slow rank",
            lost_share=0.0,
            signals=("collectives",),
            world_size=2,
            **_text(60, worst_alternates=True),
        ),
    ),
)
def slow_rank(ledger: pd.DataFrame, world_size: int | None) -> pd.DataFrame:
    """Time of each step in which the other ranks wait for one that is slow at nearly every step.

    Work is the time of a step not spent with peers. The loss is the worst rank's work over the mean: what balanced ranks would
    save. It fires only if the same rank is worst in at least (1 + 1/R)/2 of the steps, which chance would give with a
    probability below .001. It matters because every other device is paid for while it waits. It cannot see whether the rank
    has more data or a slower machine.
    """
    work = rank_work(ledger)
    ranks, steps = work["rank"].nunique(), work["step"].nunique()
    if ranks < (world_size or 2) or ranks < 2:  # noqa: PLR2004 - a comparison needs two
        message = f"has {ranks} of {world_size} ranks" if world_size and world_size > ranks else "the job has one rank"
        raise Unmeasured(message)
    if steps < _FEWEST_STEPS:
        message = f"{steps} steps, needs {_FEWEST_STEPS}"
        raise Unmeasured(message)
    means = work.groupby("step")["work_us"].mean()
    worst = work[work["is_critical"]]
    counts = worst["rank"].value_counts()
    often, slow = int(counts.iloc[0]), int(counts.index[0])
    if often < (1 + 1 / ranks) / 2 * steps or _chance(often, steps, 1 / ranks) >= _LARGEST_P:
        return worst.iloc[:0].assign(lost_us=0.0)
    lost = worst.assign(mean_work_us=worst["step"].map(means), lost_us=lambda rows: rows["work_us"] - rows["mean_work_us"])
    return lost[lost["rank"].eq(slow)]


def _chance(often: int, steps: int, share: float) -> float:
    """Probability that a rank is worst that often by chance (binomial)."""
    return sum(comb(steps, k) * share**k * (1 - share) ** (steps - k) for k in range(often, steps + 1))
