"""Fix: compile the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix

_MOST_BREAKS: Final = 10  # graph breaks: a prior, not validated


@fix(
    knobs=("compile",),
    answers=("launch_overhead", "slow_kernels"),
    reason="compiled code launches fewer kernels, and fused ones move less memory",
    source="PyTorch documentation, torch.compile; the limit of 10 graph breaks is a prior, not validated",
    caution="torch._dynamo.explain(model)(batch) counts graph breaks: over 10, little is gained; the first steps compile",
    examples=(
        FixExample("eager", {"compile": False}, {"compile": True}),
        FixExample("compiled already", {"compile": True}, None, "already"),
        FixExample("many graph breaks", {"compile": False, "graph_breaks": 11}, None, "11 graph breaks"),
        FixExample("few graph breaks", {"compile": False, "graph_breaks": 10}, {"compile": True}),
    ),
)
def compile_model(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Wrap the model with `torch.compile`; a config may state `graph_breaks` as they were counted."""
    if value_of(config, "compile"):
        return "compile is on already"
    breaks = value_of(config, "graph_breaks") if has_knob(config, "graph_breaks") else None
    if isinstance(breaks, int) and breaks > _MOST_BREAKS:
        return f"the model has {breaks} graph breaks, over {_MOST_BREAKS}"
    return {"compile": True}
