"""Knobs that a change can name but no model of this version can predict, and what would make each known."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from perfnb.prediction import Change, Unknown

_COPIES = "timed copies from pageable and from pinned memory on this machine"
_REPLAY = "a memory snapshot of two steps, to replay its allocations with the setting"
_PROBE = "both settings trained from one state on the same batches: what it does to the loss is no matter of step time"
_TRAFFIC = "times of each collective at three or more sizes on these links"

NEEDS: Final = MappingProxyType(
    {
        "non_blocking": _COPIES,
        "zero_stage": f"{_TRAFFIC}, and a dry run for the memory",
        "backend": _TRAFFIC,
        "parallelism": _TRAFFIC,
        "pipeline_split": "times of all stages",
        "expandable_segments": _REPLAY,
        "roundup_power2_divisions": _REPLAY,
        "memory_fraction": _REPLAY,
        "garbage_collection_threshold": _REPLAY,
        "optimizer": "a dry run with the other optimizer",
        "learning_rate": _PROBE,
        "warmup_steps": _PROBE,
        "clip_norm": _PROBE,
        "decay_steps": _PROBE,
        "max_steps": _PROBE,
        "detach_logged_tensors": "two memory snapshots 50 steps apart, with stacks",
    }
)


def unmodelled(change: Change) -> Unknown:
    """The answer for a change of a knob without a model.

    Examples
    --------
    >>> unmodelled(Change("pin_memory", False, True)).needs
    'timed copies from pageable and from pinned memory on this machine'
    """
    needs = NEEDS.get(change.knob, "a run with the change, compared by verify")
    return Unknown(f"{change}: there is no model of {change.knob} that rests on what this run recorded", needs)
