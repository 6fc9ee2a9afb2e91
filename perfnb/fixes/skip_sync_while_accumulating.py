"""Fix: exchange gradients once per update, not once per micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_HAVE_IT: Final = ("ddp", "fsdp", "fsdp2")
_FOUR = Run(steps=table_from_text("steps", "rank step start_us duration_us micro_batches\n0 1 0 100 4"))


@fix(
    knobs=("sync_every_micro_batch",),
    answers=("redundant_gradient_sync",),
    reason="gradients add up on each rank, and their sum is exchanged once: the same update with one exchange",
    source="PyTorch documentation, DistributedDataParallel.no_sync; FSDP2: set_requires_gradient_sync",
    caution="FSDP keeps whole gradients while it does not exchange them: more memory; forward must be inside no_sync too",
    examples=(
        FixExample(
            "4 micro-batches",
            {"sync_every_micro_batch": True, "gradient_accumulation_steps": 4},
            {"sync_every_micro_batch": False},
            world_size=2,
        ),
        FixExample(
            "4 recorded",
            {"sync_every_micro_batch": True},
            {"sync_every_micro_batch": False},
            world_size=2,
            make_run=lambda: _FOUR,
        ),
        FixExample("already", {"sync_every_micro_batch": False}, None, "already", world_size=2, make_run=lambda: _FOUR),
        FixExample(
            "none accumulate",
            {"sync_every_micro_batch": True, "gradient_accumulation_steps": 1},
            None,
            "no gradients are accumulated",
            world_size=2,
        ),
        FixExample(
            "not known whether", {"sync_every_micro_batch": True}, None, "gradient_accumulation_steps is not known", world_size=2
        ),
        FixExample("one rank", {"sync_every_micro_batch": True}, None, "one rank", world_size=1, make_run=lambda: _FOUR),
        FixExample(
            "another way to share the work",
            {"sync_every_micro_batch": True, "parallelism": "pipeline"},
            None,
            "parallelism is pipeline",
            world_size=2,
            make_run=lambda: _FOUR,
        ),
    ),
)
def skip_sync_while_accumulating(config: Mapping[str, Any], run: Run, world_size: int | None) -> Mapping[str, Any] | str:
    """Run all micro-batches of an update but the last in `no_sync`."""
    if world_size == 1:
        return "the job has one rank"
    if has_knob(config, "parallelism") and value_of(config, "parallelism") not in _HAVE_IT:
        return f"parallelism is {value_of(config, 'parallelism')}, not DDP or FSDP"
    told = value_of(config, "gradient_accumulation_steps") if has_knob(config, "gradient_accumulation_steps") else None
    seen = run.steps["micro_batches"].dropna()
    count = told if type(told) is int else (int(seen.max()) if len(seen) else None)
    if count is None:
        return "gradient_accumulation_steps is not known"
    return {"sync_every_micro_batch": False} if count > 1 else "no gradients are accumulated: each micro-batch is an update"
