"""Detector of a rank that the others wait for because it waits for its data."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perfnb.analyses.rank_excess import rank_excess, why_not_comparable
from perfnb.detector import Unmeasured, detector, example


def _text(slow: str, fast: str, *, swaps: bool = False) -> dict[str, Any]:
    """Twelve steps of 100 us of two ranks that communicate in what forward and data leave; `slow` and `fast` give these two.

    Rank 1 is the slow one, or each in turn.
    """
    steps, phases = ["rank step start_us duration_us"], ["rank step phase cpu_us runqueue_us blocked_us wall_us"]
    for step in range(12):
        for rank, given in enumerate((slow, fast) if swaps and step % 2 else (fast, slow)):
            forward, data = (int(part) for part in given.split())
            peers = 100 - forward - data
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [
                f"{rank} {step} data 0 0 {data} {data}",
                f"{rank} {step} forward {forward} 0 0 {forward}",
                f"{rank} {step} communication 0 0 {peers} {peers}",
            ]
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


@detector(
    family="imbalance",
    title="Waiting for the rank whose data comes late",
    claims=("imbalance",),
    needs=("loader",),
    after=("uneven_stages",),
    injected_by="rank_loader_sleep",
    recorded_only_when="the detection benchmark injects it",
    source="TraceML 0.5.0 calls a straggler an input straggler where its wait for data covers 80 % of what it has in excess",
    not_to_confuse_with=("slow_rank", "uneven_batches", "uneven_stages", "rank_imbalance"),
    examples=(
        example(
            "rank 1 waits 60 us for data, rank 0 does not; both compute 35: 30 of 100 us over the mean",
            lost_share=0.30,
            signals=("loader",),
            world_size=2,
            **_text("35 60", "35 0"),
        ),
        example(
            "4 of 100 us over the mean stay under the threshold",
            lost_share=0.04,
            signals=("loader",),
            world_size=2,
            **_text("87 8", "87 0"),
        ),
        example(
            "data is 16 of 20 us in excess: 80 % are enough, and 8 of 100 us over the mean",
            lost_share=0.08,
            signals=("loader",),
            world_size=2,
            **_text("79 16", "75 0"),
        ),
        example(
            "data is 15 of 20 us in excess: it is not only the data",
            lost_share=0.0,
            signals=("loader",),
            world_size=2,
            **_text("80 15", "75 0", swaps=True),
        ),
        example(
            "both ranks wait for data alike: that is a data stall",
            lost_share=0.0,
            signals=("loader",),
            world_size=2,
            **_text("45 50", "45 50"),
        ),
    ),
)
def input_straggler(work: pd.DataFrame, world_size: int | None) -> pd.DataFrame:
    """Time of each step in which the others wait for a rank that waits for its data.

    A rank counts where its wait for data, over the mean of all ranks, covers at least 80 % of its excess of work in the steps
    that wait for it. It matters because one slow disk, shard or host holds up every device. It cannot see why the data is late;
    on a device job only waits that leave the device idle count.
    """
    reason = why_not_comparable(work, world_size)
    if reason:
        raise Unmeasured(reason)
    rows = rank_excess(work)
    late = rows[rows["causes"].eq("input")]
    return late.assign(excess_us=late["lost_us"], lost_us=late["input_excess_us"])
