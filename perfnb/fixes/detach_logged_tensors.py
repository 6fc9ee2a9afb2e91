"""Fix: keep numbers of a step, not its tensors with all that they hold on to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("detach_logged_tensors",),
    answers=("memory_leak", "host_memory_leak"),
    reason="a loss that is kept for logging holds the graph of its step, and with it the activations",
    source="PyTorch documentation, FAQ: don't accumulate history across your training loop",
    caution="a change of the code, which the knob has to switch: losses.append(loss.detach()), or loss.item() at few steps",
    examples=(
        FixExample("kept as they are", {"detach_logged_tensors": False}, {"detach_logged_tensors": True}),
        FixExample("detached already", {"detach_logged_tensors": True}, None, "detached already"),
        FixExample("a training without such a switch", {"batch_size": 8}, None, "no detach_logged_tensors"),
    ),
)
def detach_logged_tensors(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Detach what is kept for logging; what else the memory is kept by (its stack) takes two memory snapshots to show."""
    if value_of(config, "detach_logged_tensors"):
        return "tensors are detached already: compare two memory snapshots to see what grows"
    return {"detach_logged_tensors": True}
