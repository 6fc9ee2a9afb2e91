"""Fix: no search for parameters that took no part in forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("find_unused_parameters",),
    answers=("redundant_gradient_sync",),
    reason="DDP walks through the graph in each forward and exchanges one more tensor, to find what is not there",
    source="PyTorch documentation, DistributedDataParallel: find_unused_parameters; its own warning where it finds none",
    caution="training stops with an error, or hangs, where a parameter is unused in some step after all",
    examples=(
        FixExample(
            "none is unused",
            {"find_unused_parameters": True, "unused_parameters": 0},
            {"find_unused_parameters": False},
            world_size=2,
        ),
        FixExample("two are", {"find_unused_parameters": True, "unused_parameters": 2}, None, "2 parameters are unused"),
        FixExample("not known whether", {"find_unused_parameters": True}, None, "unused_parameters=0"),
        FixExample("already", {"find_unused_parameters": False, "unused_parameters": 0}, None, "already"),
    ),
)
def stop_unused_search(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Turn `find_unused_parameters` off where no parameter was unused in any recorded step."""
    unused = value_of(config, "unused_parameters") if has_knob(config, "unused_parameters") else None
    if value_of(config, "find_unused_parameters") is False:
        return "find_unused_parameters is off already"
    if unused is None:
        return "whether a parameter goes unused is not known: where DDP warned that it found none, say unused_parameters=0"
    return {"find_unused_parameters": False} if unused == 0 else f"{unused} parameters are unused: the search is needed"
