"""Fix: let the host go on while a batch is copied to the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.fix import FixExample, fix


@fix(
    knobs=("non_blocking",),
    answers=("exposed_transfer",),
    reason="the host then queues the next kernels during the copy, and the device need not wait for them",
    source="PyTorch tutorial, A guide on good usage of non_blocking and pin_memory()",
    caution="read no tensor on the host that is still being copied to it; not validated on a GPU of ours",
    examples=(
        FixExample("from pinned memory", {"pin_memory": True, "non_blocking": False}, {"non_blocking": True}),
        FixExample(
            "together with pinning",
            {"pin_memory": False, "non_blocking": False},
            {"non_blocking": True, "pin_memory": True},
        ),
        FixExample("pinned or not is not known", {"non_blocking": False}, None, "no pin_memory"),
        FixExample("asynchronous already", {"pin_memory": True, "non_blocking": True}, None, "already"),
    ),
)
def copy_asynchronously(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Set `non_blocking` to True, and `pin_memory` with it: from pageable memory the host waits all the same."""
    if value_of(config, "non_blocking"):
        return "non_blocking is on already"
    if not has_knob(config, "pin_memory"):
        return "the config has no pin_memory, and from pageable memory the host waits all the same"
    return {"non_blocking": True} if value_of(config, "pin_memory") else {"non_blocking": True, "pin_memory": True}
