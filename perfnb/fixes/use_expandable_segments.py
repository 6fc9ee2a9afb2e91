"""Fix: let segments of device memory grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfnb.analyses.allocator_settings import is_on, why_not_caching
from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.tables import table_from_text
from perfnb.whatif.memory_settings import why_not_setting

_MIB = 1 << 20
_THREE_THEN_ONE = ((1, 12), (2, 12), (3, 12), (1, 0), (2, 0), (3, 0), (4, 30))
"""Three tensors of 12 MiB go, then one of 30 comes: three segments of 12 MiB are in its way, while two of 20 MiB can grow."""


def _recorded(requests: tuple[tuple[int, int], ...], reserved: int) -> Run:
    """Requests (number, MiB) and frees (number, 0), with a reserved peak in MiB."""
    rows = ["rank device sequence action address bytes requested_bytes stream pool allocated_bytes reserved_bytes"]
    sizes = dict(each for each in requests if each[1])
    for place, (number, size) in enumerate(requests):
        at, ended = f"0 0 {2 * place}", f"0 0 {2 * place + 1}"
        whole = sizes[number] * _MIB
        if size:
            rows.append(f"{at} alloc {number} {whole} {whole} 0 large 0 {reserved * _MIB}")
        else:
            rows.append(f"{at} free_requested {number} -{whole} - 0 large 0 {reserved * _MIB}")
            rows.append(f"{ended} free_completed {number} 0 - 0 large 0 {reserved * _MIB}")
    return Run(allocations=table_from_text("allocations", "\n".join(rows)))


@fix(
    knobs=("expandable_segments",),
    answers=("memory_fragmentation", "allocator_retries"),
    reason="a segment that can grow leaves no holes that are too small for the next tensor",
    source="PyTorch documentation, CUDA memory management: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    caution="set it before the first CUDA allocation: restart the kernel; only a replay can tell what it saves",
    examples=(
        FixExample("off", {"expandable_segments": "off"}, {"expandable_segments": "on"}),
        FixExample("off, as a truth value", {"expandable_segments": False}, {"expandable_segments": True}),
        FixExample(
            "a replay reserves 40 instead of 66 MiB",
            {"expandable_segments": False},
            {"expandable_segments": True},
            make_run=lambda: _recorded(_THREE_THEN_ONE, 66),
        ),
        FixExample(
            "a replay reserves as much",
            {"expandable_segments": False},
            None,
            "saves 0 B",
            make_run=lambda: _recorded(((1, 3),), 20),
        ),
        FixExample(
            "a replay reserves more: granules are 20 MiB",
            {"expandable_segments": False},
            None,
            "takes 8.00 MiB more",
            make_run=lambda: _recorded(((1, 12),), 12),
        ),
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
def use_expandable_segments(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Switch expandable segments on, where the config has torch's own caching allocator, and a replay, if any, saves 2 %."""
    if reason := why_not_caching(config):
        return reason
    if is_on(config, "expandable_segments"):
        return "segments can grow already"
    if reason := why_not_setting(run, {"expandable_segments": True}):
        return reason
    return {"expandable_segments": True if value_of(config, "expandable_segments") is False else "on"}
