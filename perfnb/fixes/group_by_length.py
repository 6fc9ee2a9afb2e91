"""Fix: put sequences of like length into one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("group_by_length",),
    answers=("padding_waste", "uneven_batches"),
    reason="sequences of like length need hardly any padding, and batches of like length are equal work",
    source="Hugging Face documentation, TrainingArguments(group_by_length=True)",
    caution="lengths must be known, and batches are less random: check that the training still converges as before",
    examples=(
        FixExample("by length", {"group_by_length": False}, {"group_by_length": True}),
        FixExample("by length already", {"group_by_length": True}, None, "already"),
        FixExample("packed sequences have no padding", {"group_by_length": False, "pack_sequences": True}, None, "packed"),
    ),
)
def group_by_length(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Set `group_by_length` to True."""
    if has_knob(config, "pack_sequences") and value_of(config, "pack_sequences"):
        return "sequences are packed, which leaves nothing to pad"
    return "group_by_length is on already" if value_of(config, "group_by_length") else {"group_by_length": True}
