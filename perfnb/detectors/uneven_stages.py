"""Detector of a pipeline whose stages have different amounts of work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.pipeline_stages import stage_of_ranks
from perfnb.analyses.rank_excess import rank_excess, why_not_comparable
from perfnb.detector import Unmeasured, detector, example

# Fitted on three public traces of ByteDance's StragglerAnalysis (AR, SE, ST), of which ST has uneven stages.
_LARGEST_WITHIN: Final = 0.05
_SMALLEST_BETWEEN: Final = 0.10
_STAGES: Final = {"pipeline_parallel_size": 2}


def _text(first: int, second: int, most: int = 100) -> dict[str, Any]:
    """Twelve steps of 100 us of four ranks: stage 0 works as given, the ranks of stage 1 take turns with `most` and 2 us less."""
    rows, phases = ["rank step start_us duration_us"], ["rank step phase wall_us"]
    for step in range(12):
        turn = (most, most - 2) if step % 2 else (most - 2, most)
        for rank, work in enumerate((first, second, *turn)):
            rows.append(f"{rank} {step} {step * 100} 100")
            phases += [f"{rank} {step} forward {work}", f"{rank} {step} communication {100 - work}"]
    return {"steps": "\n".join(rows), "phases": "\n".join(phases)}


@detector(
    family="imbalance",
    title="Waiting for the pipeline stage with the most work",
    claims=("imbalance",),
    injected_by="ByteDance ST",
    recorded_only_when="no pipeline of ours is recorded; the one public trace with uneven stages is not in the corpus",
    source="fitted on three public traces of ByteDance StragglerAnalysis (OSDI 2025): within stages below .05, between over .10",
    not_to_confuse_with=("slow_rank", "uneven_batches", "input_straggler", "rank_imbalance"),
    examples=(
        example(
            "stage 0 works 59 us, stage 1 99: 20 of 100 us over the mean of 79",
            lost_share=0.20,
            config=_STAGES,
            world_size=4,
            **_text(59, 59),
        ),
        example(
            "ranks of stage 0 differ by 4 %: 49 and 99 us, so 25 of 100 us over the mean",
            lost_share=0.25,
            config=_STAGES,
            world_size=4,
            **_text(48, 50),
        ),
        example(
            "ranks of stage 0 differ by 6 %: the difference is not one of stages",
            lost_share=0.0,
            config=_STAGES,
            world_size=4,
            **_text(47, 50),
        ),
        example(
            "stages of 87 and 99 us differ by 12 % and cost 6 of 100 us",
            lost_share=0.06,
            config={"pipeline_stages": [0, 0, 1, 1]},
            world_size=4,
            **_text(87, 87),
        ),
        example(
            "stages of 90 and 99 us differ by 9 %: under the threshold between stages",
            lost_share=0.0,
            config=_STAGES,
            world_size=4,
            **_text(90, 90),
        ),
    ),
)
def uneven_stages(work: pd.DataFrame, config: Mapping[str, Any], world_size: int | None) -> pd.DataFrame:
    """Time of each step in which the pipeline waits for the stage that has the most work.

    Fires where ranks of one stage work alike (1 - least/most below .05) and means of the stages differ by over .10. The loss is
    the most loaded stage's mean work over the mean of all. It matters because every micro-batch passes the slowest stage. It
    cannot tell a slow stage from a slow rank where a stage has one rank, nor does it know the bubble that a schedule makes with
    equal stages; which rank is in which stage comes from the config.
    """
    reason = why_not_comparable(work, world_size)
    if reason:
        raise Unmeasured(reason)
    ranks = sorted(int(rank) for rank in work["rank"].unique())
    stages = stage_of_ranks(config, len(ranks), world_size)
    if isinstance(stages, str):
        raise Unmeasured(stages)
    per_rank = work.groupby("rank")["work_us"].mean()
    by_stage = per_rank.groupby(pd.Series(stages, index=ranks).reindex(per_rank.index))
    if by_stage.size().min() < 2:  # noqa: PLR2004 - a spread needs two
        message = "a stage has one rank: a slow stage looks like a slow rank there"
        raise Unmeasured(message)
    means = by_stage.mean()
    spread = (1.0 - by_stage.min() / by_stage.max()).max()
    between = 1.0 - means.min() / means.max()
    rows = rank_excess(work)
    if not (spread < _LARGEST_WITHIN and between > _SMALLEST_BETWEEN):
        return rows.iloc[:0]
    stage = work["rank"].map(dict(zip(ranks, stages, strict=True)))
    slowest = means.sort_values().index.to_list()[-1]
    of_stage = work[stage.eq(slowest)].groupby("step")["work_us"].mean()
    excess = (of_stage - work.groupby("step")["work_us"].mean()).clip(lower=0.0)
    return rows.assign(stage=slowest, stage_work_us=rows["step"].map(of_stage), lost_us=rows["step"].map(excess))
