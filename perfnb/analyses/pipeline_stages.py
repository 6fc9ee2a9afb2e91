"""Which pipeline stage each rank holds, as the config tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of


def stage_of_ranks(config: Mapping[str, Any], ranks: int, world_size: int | None) -> tuple[int, ...] | str:
    """Stage of each rank in the order of their numbers, or why it is not known.

    `pipeline_stages` lists them; `pipeline_parallel_size` alone means that the first world_size / size ranks are stage 0 and so
    on, which is how Megatron-LM orders ranks (megatron/core/parallel_state.py: tp-cp-ep-dp-pp, the pipeline outermost).

    Parameters
    ----------
    config
        The training's config.
    ranks
        Number of ranks that were read.
    world_size
        Ranks of the job, None where unknown.

    Examples
    --------
    >>> stage_of_ranks({"pipeline_parallel_size": 2}, 4, 4)
    (0, 0, 1, 1)
    >>> stage_of_ranks({}, 4, 4)
    'the config names no pipeline stages: give pipeline_parallel_size, or pipeline_stages (the stage of each rank)'
    """
    if has_knob(config, "pipeline_stages"):
        listed = value_of(config, "pipeline_stages")
        if isinstance(listed, (list, tuple)) and len(listed) == ranks and all(type(stage) is int for stage in listed):
            return tuple(listed)
        return f"pipeline_stages does not list the stage of each of the {ranks} ranks"
    if not has_knob(config, "pipeline_parallel_size"):
        return "the config names no pipeline stages: give pipeline_parallel_size, or pipeline_stages (the stage of each rank)"
    size, everyone = value_of(config, "pipeline_parallel_size"), world_size or ranks
    if type(size) is not int or size < 1 or everyone != ranks or ranks % size:
        return f"pipeline_parallel_size is {size!r} for {ranks} ranks: give pipeline_stages, the stage of each rank"
    if size == 1:
        return "the pipeline has one stage"
    return tuple(rank // (ranks // size) for rank in range(ranks))
