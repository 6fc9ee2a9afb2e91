"""Detector of unequal work on the ranks, whatever its cause: the heading of its family."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perfnb.analyses.rank_excess import rank_excess, why_not_comparable
from perfnb.detector import Unmeasured, detector, example


def _text(least_work: int, *, always: bool = False) -> dict[str, Any]:
    """Twelve steps of 100 us of two ranks: one works all the time, the other as given; which one swaps, or is always rank 1."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us"]
    for step in range(12):
        for rank in range(2):
            work = 100 if rank == (1 if always else step % 2) else least_work
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} forward {work}", f"{rank} {step} communication {100 - work}"]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


@detector(
    family="imbalance",
    title="Ranks that wait because their work is unequal",
    claims=("imbalance",),
    after=("uneven_stages", "input_straggler", "slow_rank", "uneven_batches"),
    is_base=True,
    flag_above=0.10,
    injected_by="uneven_rank, random_batches, rank_loader_sleep",
    recorded_only_when="the detection benchmark injects its causes; where one is found this one is silent",
    source="TraceML 0.5.0 reports a difference between ranks from 10 to 20 % of the step",
    not_to_confuse_with=("exposed_communication", "data_stall", "python_overhead"),
    examples=(
        example(
            "one of two ranks works 60 us less, in turn: 30 of 100 us over the mean", lost_share=0.30, world_size=2, **_text(40)
        ),
        example("10 of 100 us over the mean are the threshold", lost_share=0.10, world_size=2, **_text(80)),
        example("9 of 100 us stay under it", lost_share=0.09, world_size=2, **_text(82)),
        example(
            "always the same rank: it is looked at alone here, slow_rank claims it first",
            lost_share=0.30,
            world_size=2,
            **_text(40, always=True),
        ),
    ),
)
def rank_imbalance(work: pd.DataFrame, world_size: int | None) -> pd.DataFrame:
    """Time of each step in which ranks wait for the one with the most work, as far as no cause of it was found.

    The loss is the largest work minus the mean over ranks: equal work would save it. Uneven stages, late data, a slow rank and
    uneven batches take theirs first. It matters because the step ends with its slowest rank. It cannot say why the work differs.
    In a pipeline work that is equal may still leave a bubble, and less than this may be saved: that needs a replay.
    """
    reason = why_not_comparable(work, world_size)
    if reason:
        raise Unmeasured(reason)
    return rank_excess(work)
