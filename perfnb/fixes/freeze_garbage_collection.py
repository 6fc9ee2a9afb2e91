"""Fix: keep Python's garbage collector from going through what lives on anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("gc_freeze",),
    answers=("garbage_collection_pauses",),
    reason="collections are long because they go through all objects that live on; frozen ones are left out",
    source="Python documentation, gc.freeze; Instagram, dismissing Python garbage collection (2017)",
    caution="call gc.freeze() once, after the model and the data are built; cycles that are frozen are never freed, and a loop "
    "that calls gc.collect() itself has to stop",
    examples=(
        FixExample("frozen after the start", {"gc_freeze": False}, {"gc_freeze": True}),
        FixExample("frozen already", {"gc_freeze": True}, None, "already"),
        FixExample("not said", {"gc_freeze": "sometimes"}, None, "'sometimes'"),
    ),
)
def freeze_garbage_collection(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Freeze what was made before the first step."""
    now = value_of(config, "gc_freeze")
    if type(now) is not bool and now is not None:
        return f"gc_freeze is {now!r}, neither on nor off"
    return "gc_freeze is on already" if now else {"gc_freeze": True}
