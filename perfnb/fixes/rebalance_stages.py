"""Fix: other numbers of layers in the stages of a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from perfnb.analyses.pipeline_stages import stage_of_ranks
from perfnb.config.mapping import value_of
from perfnb.errors import PerfnbError
from perfnb.fix import FixExample, fix
from perfnb.ledger import step_ledger
from perfnb.run import Run
from perfnb.tables import table_from_text
from perfnb.work import rank_work


def _run(*work: int) -> Run:
    """One step of 100 us of as many ranks, which communicate when they do not work."""
    phases = "\n".join(f"{rank} 1 forward {each}\n{rank} 1 communication {100 - each}" for rank, each in enumerate(work))
    steps = "\n".join(f"{rank} 1 0 100" for rank in range(len(work)))
    return Run(
        steps=table_from_text("steps", f"rank step start_us duration_us\n{steps}"),
        phases=table_from_text("phases", f"rank step phase wall_us\n{phases}"),
        world_size=len(work),
    )


@fix(
    knobs=("pipeline_split",),
    answers=("uneven_stages",),
    reason="every micro-batch passes the slowest stage, so equal stages are the shortest pipeline",
    source="ByteDance StragglerAnalysis (OSDI 2025): uneven partitioning of pipeline stages as a cause of stragglers",
    caution="layers of one stage are taken to cost the same; embedding and loss stay; memory per stage changes too",
    examples=(
        FixExample(
            "stages of 4 layers at 40 and 80 us: layers of 10 and 20 us are best cut as 5 and 3",
            {"pipeline_split": [4, 4], "pipeline_stages": [0, 0, 1, 1]},
            {"pipeline_split": [5, 3]},
            make_run=lambda: _run(40, 40, 80, 80),
        ),
        FixExample(
            "equal already",
            {"pipeline_split": [4, 4], "pipeline_stages": [0, 1]},
            None,
            "shortest already",
            make_run=lambda: _run(60, 60),
        ),
        FixExample(
            "no rank of stage 2 was read",
            {"pipeline_split": [4, 4, 4], "pipeline_stages": [0, 1]},
            None,
            "2 of 3 stages",
            make_run=lambda: _run(60, 60),
        ),
        FixExample(
            "stages not known", {"pipeline_split": [4, 4]}, None, "names no pipeline stages", make_run=lambda: _run(60, 60)
        ),
        FixExample("not numbers of layers", {"pipeline_split": "4,4"}, None, "'4,4'", make_run=lambda: _run(60, 60)),
        FixExample(
            "nothing recorded", {"pipeline_split": [4, 4], "pipeline_stages": []}, None, "times of the stages", make_run=Run
        ),
    ),
)
def rebalance_stages(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Cut the same layers, in their order, so that the slowest stage is as short as it can be."""
    split = value_of(config, "pipeline_split")
    if not isinstance(split, (list, tuple)) or not all(type(layers) is int and layers > 0 for layers in split):
        return f"pipeline_split is {split!r}: give the number of layers of each stage"
    try:
        work = rank_work(step_ledger(run)).groupby("rank")["work_us"].mean()
    except PerfnbError as reason:
        return f"times of the stages are not known: {reason}"
    stages = stage_of_ranks(config, len(work), run.world_size)
    if isinstance(stages, str):
        return stages
    found = work.groupby(list(stages)).mean()
    if set(found.index) != set(range(len(split))):
        return f"{len(found)} of {len(split)} stages were read: the times of all are needed"
    costs = [float(found[stage]) / layers for stage, layers in enumerate(split) for _ in range(layers)]
    best = _shortest(costs, len(split))
    if _slowest(costs, best) >= float(found.max()) * (1 - 1e-9):
        return "the split is the shortest already, as far as its layers cost the same within a stage"
    return {"pipeline_split": best}


def _slowest(costs: Sequence[float], split: Sequence[int]) -> float:
    """Time of the slowest stage."""
    edges = [sum(split[:stage]) for stage in range(len(split) + 1)]
    return max(sum(costs[low:high]) for low, high in itertools.pairwise(edges))


def _shortest(costs: Sequence[float], stages: int) -> list[int]:
    """Numbers of layers, one at least per stage, whose slowest stage is shortest: by the first layer of the last stage."""
    upto = [0.0]
    for cost in costs:
        upto.append(upto[-1] + cost)
    best: list[tuple[float, list[int]]] = [(upto[end], [end]) for end in range(len(costs) + 1)]
    for stage in range(1, stages):
        best = [
            min(
                ((max(best[cut][0], upto[end] - upto[cut]), [*best[cut][1], end - cut]) for cut in range(stage, end)),
                default=(float("inf"), []),
            )
            for end in range(len(costs) + 1)
        ]
    return best[len(costs)][1]
