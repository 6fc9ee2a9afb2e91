"""Detector of batches that give another rank the most work at each step."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb.analyses.rank_excess import rank_excess, why_not_comparable
from perfnb.detector import Unmeasured, detector, example

_SMALLEST_SPREAD: Final = 0.05  # 1 - mean/max of work: what torch_tb_profiler 0.4.3 reports of a wait, as a share of the step
_SMALLEST_CORRELATION: Final = 0.5  # Spearman, of work and tokens: half of the rank order in common (a prior)


def _text(least_work: int, *, sizes: tuple[int, int] = (60, 100)) -> dict[str, Any]:
    """Twelve steps of 100 us of two ranks; the one with the larger batch works all the time, the other as given.

    Which one that is swaps from step to step.
    """
    steps, phases, training = ["rank step start_us duration_us"], ["rank step phase wall_us"], ["rank step time_us batch_size"]
    for step in range(12):
        for rank in range(2):
            is_worst = rank == step % 2
            work = 100 if is_worst else least_work
            steps.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} forward {work}", f"{rank} {step} communication {100 - work}"]
            training.append(f"{rank} {step} {step * 100 + 99} {sizes[is_worst]}")
    return {"steps": "\n".join(steps), "phases": "\n".join(phases), "training": "\n".join(training)}


@detector(
    family="imbalance",
    title="Waiting for the rank with the largest batch",
    claims=("imbalance",),
    after=("uneven_stages", "input_straggler", "slow_rank"),
    injected_by="random_batches",
    recorded_only_when="the detection benchmark injects it",
    source="torch_tb_profiler 0.4.3 reports waits above 5 % of a step; a rank correlation of .5 of work and tokens is a prior",
    not_to_confuse_with=("slow_rank", "input_straggler", "uneven_stages", "rank_imbalance"),
    examples=(
        example(
            "the rank with 100 samples works 100 us, the other 60, in turn: 20 of 100 us over the mean",
            lost_share=0.20,
            world_size=2,
            **_text(60),
        ),
        example("4 of 100 us over the mean stay under the threshold", lost_share=0.0, world_size=2, **_text(92)),
        example("6 of 100 us over the mean are past it", lost_share=0.06, world_size=2, **_text(88)),
        example(
            "batches of one size: they are not why the work differs",
            lost_share=0.0,
            world_size=2,
            **_text(60, sizes=(80, 80)),
        ),
        example(
            "the rank with the smaller batch works longer: batches are not why",
            lost_share=0.0,
            world_size=2,
            **_text(60, sizes=(100, 60)),
        ),
    ),
)
def uneven_batches(work: pd.DataFrame, training: pd.DataFrame, world_size: int | None) -> pd.DataFrame:
    """Time of each step in which ranks with less data wait for the one with the most, another one each time.

    Fires where no rank is worst more often than chance has it, 1 - mean/max of the work is at least .05, and work follows the
    tokens (where not recorded, the samples) of each rank and step: Spearman's correlation of what lies over the step's mean is
    .5 or more. It matters because the step ends with the largest batch, and lengths can be balanced. It cannot see what makes
    samples of one length cost more, and needs the number of tokens or samples of each rank.
    """
    reason = why_not_comparable(work, world_size)
    if reason:
        raise Unmeasured(reason)
    sizes = training[["rank", "step"]].assign(size=training["tokens"].fillna(training["batch_size"]))
    both = work.merge(sizes.dropna().drop_duplicates(["rank", "step"]), on=["rank", "step"])
    if both.empty:
        message = "neither tokens nor batch sizes were recorded: recorder.log(tokens=...)"
        raise Unmeasured(message)
    rows = rank_excess(work)
    changing = rows[rows["causes"].eq("changing")]
    over_mean = both[["work_us", "size"]] - both.groupby("step")[["work_us", "size"]].transform("mean")
    ranked = over_mean.rank()
    has_order = bool((over_mean["size"] != 0).any())  # batches of one size have none
    correlation = ranked["work_us"].corr(ranked["size"]) if has_order else 0.0
    spread = rows["lost_us"].sum() / rows["work_us"].sum()
    if not (correlation >= _SMALLEST_CORRELATION and spread >= _SMALLEST_SPREAD) or rows["causes"].eq("slow").any():
        return changing.iloc[:0]
    return changing.merge(sizes, how="left", on=["rank", "step"]).assign(correlation=correlation)
