"""Fix: compute activations again in backward instead of keeping them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.held_memory import why_not_activations
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, OneOf, fix
from perfnb.run import Run
from perfnb.tables import table_from_text

_OFF: Final = ("none", None, False)


def _holding(kept: int, peak: int) -> Run:
    rows = f"rank step device allocated_bytes peak_allocated_bytes\n0 9 0 {kept} {peak}"
    return Run(allocator=table_from_text("allocator", rows), signals=frozenset({"allocator"}))


@fix(
    knobs=("activation_checkpointing",),
    answers=("memory_pressure",),
    reason="activations are most of the memory at its peak, and forward can make them again",
    source="PyTorch documentation, torch.utils.checkpoint; Chen et al. (2016): memory of activations for one more forward pass",
    caution="a step takes longer: forward of the wrapped modules runs twice; random state and in-place changes need care",
    examples=(
        FixExample(
            "300 bytes stay, 700 come and go, with Adam",
            {"activation_checkpointing": "none", "optimizer": "adamw"},
            {"activation_checkpointing": OneOf(("selective", "full"))},
            make_run=lambda: _holding(300, 1000),
        ),
        FixExample(
            "from selective to full",
            {"activation_checkpointing": "selective", "optimizer": "adamw"},
            {"activation_checkpointing": "full"},
            make_run=lambda: _holding(300, 1000),
        ),
        FixExample(
            "of an optimizer without state gradients may be as large as what stays",
            {"activation_checkpointing": "none", "optimizer": "sgd"},
            None,
            "60% of it comes and goes",
            make_run=lambda: _holding(400, 1000),
        ),
        FixExample(
            "most of it stays",
            {"activation_checkpointing": "none", "optimizer": "adamw"},
            None,
            "may not be the largest",
            make_run=lambda: _holding(800, 1000),
        ),
        FixExample("categories not known", {"activation_checkpointing": "none"}, None, "is not known"),
        FixExample("on already", {"activation_checkpointing": "full"}, None, "already", make_run=lambda: _holding(300, 1000)),
    ),
)
def checkpoint_activations(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Wrap modules in activation checkpointing, where activations are known to be the largest part of the peak."""
    now = value_of(config, "activation_checkpointing")
    if now == "full" or now is True:
        return "activations are made again already"
    if reason := why_not_activations(run, config):
        return reason
    return {"activation_checkpointing": OneOf(("selective", "full")) if now in _OFF else "full"}
