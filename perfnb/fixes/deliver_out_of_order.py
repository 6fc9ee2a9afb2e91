"""Fix: train on whichever batch is ready first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("in_order",),
    answers=("outlier_samples",),
    reason="one slow batch then holds up no other that is ready",
    source="PyTorch documentation, torch.utils.data.DataLoader: in_order=False (torch 2.13 has it)",
    caution="the order of batches is then not the same from run to run, and slow samples come later: is that all right?",
    examples=(
        FixExample("with workers", {"num_workers": 2, "in_order": True}, {"in_order": False}),
        FixExample("out of order already", {"num_workers": 2, "in_order": False}, None, "already"),
        FixExample("no workers", {"num_workers": 0, "in_order": True}, None, "no workers"),
        FixExample("one worker", {"num_workers": 1, "in_order": True}, None, "one worker"),
    ),
)
def deliver_out_of_order(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Set `in_order` to False."""
    workers = value_of(config, "num_workers") if has_knob(config, "num_workers") else None
    if workers == 0:
        return "there are no workers whose batches could overtake one another"
    if workers == 1:
        return "batches of one worker come in order"
    return {"in_order": False} if value_of(config, "in_order") else "in_order is False already"
