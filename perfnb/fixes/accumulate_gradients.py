"""Fix: more micro-batches per update, so that gradients are exchanged less often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix

_OURS = {"gradient_accumulation_steps": 1}


@fix(
    knobs=("gradient_accumulation_steps",),
    answers=("exposed_communication",),
    reason="gradients of twice as many samples are exchanged once",
    source="PyTorch documentation, DistributedDataParallel.no_sync; learning rate: Malladi 2022 (Adam-like), Goyal 2017 (SGD)",
    caution=(
        "an update sees twice the batch: half as many updates per epoch, and the learning rate goes along (x 1.41 for Adam-like "
        "optimizers, x 2 for SGD below the critical batch), to be probed; a step is one update: compare samples per second"
    ),
    examples=(
        FixExample("2 for 1", _OURS, {"gradient_accumulation_steps": 2}, world_size=2),
        FixExample(
            "8 for 4",
            {"gradient_accumulation_steps": 4, "sync_every_micro_batch": False},
            {"gradient_accumulation_steps": 8},
            world_size=2,
        ),
        FixExample("one rank", _OURS, None, "one rank", world_size=1),
        FixExample(
            "each micro-batch is exchanged",
            {"gradient_accumulation_steps": 2, "sync_every_micro_batch": True},
            None,
            "sync_every_micro_batch",
            world_size=2,
        ),
        FixExample("not a number", {"gradient_accumulation_steps": "auto"}, None, "'auto'", world_size=2),
    ),
)
def accumulate_gradients(config: Mapping[str, Any], world_size: int | None) -> Mapping[str, Any] | str:
    """Double `gradient_accumulation_steps`; the batch of an update doubles with it."""
    now = value_of(config, "gradient_accumulation_steps")
    if world_size == 1:
        return "the job has one rank"
    if type(now) is not int or now < 1:
        return f"gradient_accumulation_steps is {now!r}, no number of micro-batches"
    if has_knob(config, "sync_every_micro_batch") and value_of(config, "sync_every_micro_batch"):
        return "sync_every_micro_batch is on: more micro-batches would be exchanged as often"
    return {"gradient_accumulation_steps": 2 * now}
