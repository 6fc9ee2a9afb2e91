"""Fix: take the same batch in smaller parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("batch_size", "gradient_accumulation_steps"),
    answers=("memory_pressure",),
    reason="activations grow with the micro-batch, and gradients of its parts add up to those of the whole",
    source="Hugging Face documentation, Methods and tools for efficient training: gradient accumulation",
    caution="a step takes longer; batch normalisation sees the smaller batch; the loss must be divided by the number of parts",
    examples=(
        FixExample(
            "32 at once become twice 16",
            {"batch_size": 32, "gradient_accumulation_steps": 1},
            {"batch_size": 16, "gradient_accumulation_steps": 2},
        ),
        FixExample(
            "an odd batch in three parts, so that the whole stays the same",
            {"batch_size": 9, "gradient_accumulation_steps": 2},
            {"batch_size": 3, "gradient_accumulation_steps": 6},
        ),
        FixExample("one sample", {"batch_size": 1, "gradient_accumulation_steps": 4}, None, "one sample"),
        FixExample("no accumulation to be had", {"batch_size": 8}, None, "no gradient_accumulation_steps"),
        FixExample("not a number", {"batch_size": "auto", "gradient_accumulation_steps": 1}, None, "'auto'"),
    ),
)
def lower_batch_accumulate(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Split each micro-batch by its smallest divisor and accumulate that many more: the batch of an update stays the same."""
    size, parts = value_of(config, "batch_size"), value_of(config, "gradient_accumulation_steps")
    for knob, value in (("batch_size", size), ("gradient_accumulation_steps", parts)):
        if type(value) is not int or value < 1:
            return f"{knob} is {value!r}, not a number of {'samples' if knob == 'batch_size' else 'parts'}"
    if size == 1:
        return "a micro-batch is one sample already"
    divisor = next((each for each in range(2, int(size**0.5) + 1) if size % each == 0), size)
    return {"batch_size": size // divisor, "gradient_accumulation_steps": parts * divisor}
