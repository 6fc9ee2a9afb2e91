"""Detector of one rank that has more work than the others at nearly every step."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perfnb.analyses.rank_excess import rank_excess, why_not_comparable
from perfnb.detector import Unmeasured, detector, example


def _text(least_work: int, *, swapped: int = 0, ranks: int = 2) -> dict[str, Any]:
    """Twelve steps of 100 us: the last rank works all the time, the others as given, and wait for the rest.

    In the first `swapped` steps rank 0 is the one that works all the time.
    """
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us"]
    for step in range(12):
        for rank in range(ranks):
            worst = 0 if step < swapped else ranks - 1
            work = 100 if rank == worst else least_work
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} forward {work}", f"{rank} {step} communication {100 - work}"]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


@detector(
    family="imbalance",
    title="Waiting for the rank with the most work",
    claims=("imbalance",),
    after=("uneven_stages", "input_straggler"),
    injected_by="uneven_rank",
    source="same rank worst in (1 + 1/R)/2 of steps, half-way from chance to always: a control .57, a slow rank 1.00 (recorded)",
    not_to_confuse_with=(
        "exposed_communication",
        "data_stall",
        "python_overhead",
        "input_straggler",
        "uneven_stages",
        "uneven_batches",
    ),
    examples=(
        example(
            "rank 1 works 100 us, rank 0 works 60 us in every step: 20 of 100 us over the mean",
            lost_share=0.20,
            world_size=2,
            **_text(60),
        ),
        example(
            "rank 0 works 92 us, rank 1 100 us: 4 of 100 us over the mean stay under the threshold",
            lost_share=0.04,
            world_size=2,
            **_text(92),
        ),
        example(
            "the worst rank changes from step to step: that is uneven batches, not a slow rank",
            lost_share=0.0,
            world_size=2,
            **_text(60, swapped=6),
        ),
        example(
            "rank 1 is worst in 10 of the 11 steps after the first: chance gives that with p = .006, not below .001",
            lost_share=0.0,
            world_size=2,
            **_text(60, swapped=2),
        ),
        example(
            "rank 3 of four is worst in 8 of 11 steps: over (1 + 1/4)/2, but p = .0012",
            lost_share=0.0,
            world_size=4,
            **_text(60, swapped=4, ranks=4),
        ),
        example(
            "rank 3 of four is worst in 9 of 11 steps, p = .0001: it loses 30 of 100 us in these",
            lost_share=0.30 * 9 / 11,
            world_size=4,
            **_text(60, swapped=3, ranks=4),
        ),
    ),
)
def slow_rank(work: pd.DataFrame, world_size: int | None, host_samples: pd.DataFrame | None = None) -> pd.DataFrame:
    """Time of each step in which the other ranks wait for one that is slow at nearly every step.

    Work is the time of a step not spent with peers. The loss is the worst rank's work over the mean: what balanced ranks would
    save. It fires only if the same rank is worst in at least (1 + 1/R)/2 of the steps, which chance would give with a
    probability below .001, and if waiting for data is not what it has in excess. The evidence names its host where that was
    recorded. It matters because every other device is paid for while it waits. It cannot see whether the rank has more data or
    a slower machine.
    """
    reason = why_not_comparable(work, world_size)
    if reason:
        raise Unmeasured(reason)
    rows = rank_excess(work)
    slow = rows[rows["causes"].eq("slow")]
    if host_samples is None or host_samples.empty:
        return slow
    hosts = host_samples.dropna(subset="host").groupby("rank")["host"].first().astype(object)
    return slow.assign(host=slow["rank"].map(hosts))
