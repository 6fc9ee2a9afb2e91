"""A trainer's settings as knobs: the names of another library -> ours, with what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SCHEDULES: Mapping[str, str] = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine",
    "cosine_with_restarts": "restarts",
    "CosineAnnealingLR": "cosine",
    "CosineAnnealingWarmRestarts": "restarts",
    "ConstantLR": "constant",
    "LinearLR": "linear",
}
"""Name of a schedule (transformers.SchedulerType, class of torch.optim.lr_scheduler) to ours; others are unknown."""


def told(settings: object, knobs: Mapping[str, str]) -> dict[str, Any]:
    """Knob to value, for those settings that are there and are not None.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> told(SimpleNamespace(dataloader_num_workers=2), {"dataloader_num_workers": "num_workers", "seed": "seed"})
    {'num_workers': 2}
    """
    found = {knob: getattr(settings, name, None) for name, knob in knobs.items()}
    return {knob: value for knob, value in found.items() if value is not None}


def attempted(tell: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What another library tells; nothing where it no longer has what is asked for."""
    try:
        return tell()
    except Exception:  # noqa: BLE001 - settings are extra: no training ends for want of them
        return {}
