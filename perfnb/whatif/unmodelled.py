"""Knobs that a change can name but no model of this version can predict, and what would make each known."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from perfnb.prediction import Change, Unknown

_REPLAY = 'a memory snapshot of two steps, and metric="memory_bytes": what it does to the step is not modelled'
_PROBE = "both settings trained from one state on the same batches: what it does to the loss is no matter of step time"
_STAGES = "each stage's operations, micro-batch by micro-batch, given to perfnb.pipeline_replay, then perfnb.predict_pipeline"

NEEDS: Final = MappingProxyType(
    {
        "parallelism": "a run with the other kind: how it shares work and data is no edit of this run",
        "pipeline_split": _STAGES,
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

OF_THE_LOSS: Final = ("learning_rate", "warmup_steps", "clip_norm", "decay_steps")
"""Knobs that take no time of a step, and so may go along with a change that does."""


def unmodelled(change: Change) -> Unknown:
    """The answer for a change of a knob without a model.

    Examples
    --------
    >>> unmodelled(Change("optimizer", "adam", "adafactor")).needs
    'a dry run with the other optimizer'
    """
    needs = NEEDS.get(change.knob, "a run with the change, compared by verify")
    return Unknown(f"{change}: there is no model of {change.knob} that rests on what this run recorded", needs)
