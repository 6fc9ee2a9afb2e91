"""Fix: give every rank the same amount of work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("balance_batches",),
    answers=("slow_rank", "uneven_batches", "rank_imbalance", "memory_rank_skew"),
    reason="the step ends with the rank that has the most work, so equal work is the shortest step",
    source="ByteDance StragglerAnalysis (OSDI 2025): sequence lengths and slow workers as causes of stragglers",
    caution="lengths or costs of samples must be known on all ranks; a rank with slower hardware stays slow",
    examples=(
        FixExample("two ranks", {"balance_batches": False}, {"balance_batches": True}, world_size=2),
        FixExample("balanced already", {"balance_batches": True}, None, "already", world_size=2),
        FixExample("one rank", {"balance_batches": False}, None, "one rank", world_size=1),
    ),
)
def balance_batches(config: Mapping[str, Any], world_size: int | None) -> Mapping[str, Any] | str:
    """Distribute samples by cost, not by number."""
    if world_size == 1:
        return "the job has one rank"
    return "balance_batches is on already" if value_of(config, "balance_batches") else {"balance_batches": True}
