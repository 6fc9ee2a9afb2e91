"""Fix: let segments of device memory grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.analyses.allocator_settings import is_on, why_not_caching
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("expandable_segments",),
    answers=("memory_fragmentation", "allocator_retries"),
    reason="a segment that can grow leaves no holes that are too small for the next tensor",
    source="PyTorch documentation, CUDA memory management: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    caution="set it before the first CUDA allocation: restart the kernel; only a replay can tell what it saves",
    examples=(
        FixExample("off", {"expandable_segments": "off"}, {"expandable_segments": "on"}),
        FixExample("off, as a truth value", {"expandable_segments": False}, {"expandable_segments": True}),
        FixExample("on already", {"expandable_segments": "on"}, None, "already"),
        FixExample("a CPU", {"expandable_segments": "off", "device": "cpu"}, None, "runs on cpu"),
        FixExample(
            "another allocator",
            {"expandable_segments": "off", "allocator_backend": "cudaMallocAsync"},
            None,
            "does not heed this setting",
        ),
    ),
)
def use_expandable_segments(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Switch expandable segments on, where the config has torch's own caching allocator."""
    if reason := why_not_caching(config):
        return reason
    if is_on(config, "expandable_segments"):
        return "segments can grow already"
    return {"expandable_segments": True if value_of(config, "expandable_segments") is False else "on"}
