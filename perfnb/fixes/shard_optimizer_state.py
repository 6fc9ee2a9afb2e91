"""Fix: let each rank keep a part of the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.held_memory import why_not_states
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, OneOf, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_STAGES: Final = (1, 2, 3)
_ADAM: Final = {"zero_stage": 0, "optimizer": "adamw"}


def _holding(kept: int, peak: int) -> Run:
    rows = f"rank step device allocated_bytes peak_allocated_bytes\n0 9 0 {kept} {peak}"
    return Run(allocator=table_from_text("allocator", rows), signals=frozenset({"allocator"}))


@fix(
    knobs=("zero_stage",),
    answers=("memory_pressure",),
    reason="every rank keeps the same optimizer state, and each needs only its part of it",
    source="Rajbhandari et al. (2020), ZeRO: stages 1 to 3 part state, gradients, parameters; torch's own FSDP",
    caution="stages 2 and 3 change what is communicated in each step; checkpoints are saved in parts",
    examples=(
        FixExample(
            "800 bytes stay, 200 come and go, on four ranks",
            _ADAM,
            {"zero_stage": OneOf(_STAGES)},
            world_size=4,
            make_run=lambda: _holding(800, 1000),
        ),
        FixExample(
            "from stage 1 on",
            {**_ADAM, "zero_stage": 1},
            {"zero_stage": OneOf((2, 3))},
            world_size=4,
            make_run=lambda: _holding(800, 1000),
        ),
        FixExample("one rank", _ADAM, None, "one rank", world_size=1, make_run=lambda: _holding(800, 1000)),
        FixExample("ranks not known", _ADAM, None, "number of ranks is not known", make_run=lambda: _holding(800, 1000)),
        FixExample(
            "most comes and goes", _ADAM, None, "70% of it comes and goes", world_size=4, make_run=lambda: _holding(300, 1000)
        ),
        FixExample("no state to part", {"zero_stage": 0, "optimizer": "sgd"}, None, "no state tensor", world_size=4),
        FixExample("categories not known", _ADAM, None, "what holds the memory", world_size=4),
        FixExample(
            "as far as it goes", {**_ADAM, "zero_stage": 3}, None, "3 already", world_size=4, make_run=lambda: _holding(800, 1000)
        ),
        FixExample("not a stage", {**_ADAM, "zero_stage": "auto"}, None, "'auto'", world_size=4),
    ),
)
def shard_optimizer_state(config: Mapping[str, Any], world_size: int | None, run: Run) -> Mapping[str, Any] | str:
    """Raise the ZeRO stage, where the optimizer's state is known to be the largest part of the peak."""
    now = value_of(config, "zero_stage")
    if type(now) is not int or not 0 <= now <= max(_STAGES):
        return f"zero_stage is {now!r}, no stage from 0 to 3"
    if world_size is None:
        return "the number of ranks is not known"
    if world_size == 1:
        return "the job has one rank"
    if reason := why_not_states(run, config):
        return reason
    left = tuple(stage for stage in _STAGES if stage > now)
    return {"zero_stage": OneOf(left)} if left else f"zero_stage is {now} already"
