"""Fix: let the compiler make code for shapes that change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("compile_dynamic",),
    answers=("recompilation",),
    reason="code for dynamic shapes is compiled once, in place of once per shape",
    source="PyTorch documentation, torch.compile(dynamic=True) and dynamic shapes",
    caution="padding batches to a few lengths keeps the faster code for fixed shapes; TORCH_LOGS=recompiles says what changed",
    examples=(
        FixExample("compiled for each shape", {"compile": True, "compile_dynamic": None}, {"compile_dynamic": True}),
        FixExample("never dynamic", {"compile": True, "compile_dynamic": False}, {"compile_dynamic": True}),
        FixExample("dynamic already", {"compile": True, "compile_dynamic": True}, None, "already"),
        FixExample("not compiled", {"compile": False, "compile_dynamic": None}, None, "compile is off"),
    ),
)
def hold_shapes_still(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Compile with `dynamic=True`, where the model is compiled."""
    if has_knob(config, "compile") and not value_of(config, "compile"):
        return "compile is off in the config"
    return "compile_dynamic is on already" if value_of(config, "compile_dynamic") is True else {"compile_dynamic": True}
