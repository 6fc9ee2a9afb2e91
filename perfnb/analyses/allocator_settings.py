"""Whether settings of torch's caching allocator can do anything for a training, as its config tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.analyses.loader_stall import knob_or_none
from perfnb.config.mapping import has_knob, value_of

OFF: Final = (None, False, "off", "none", "")

_WITH_IT: Final = ("cuda", "hip")
_OTHER_BACKEND: Final = (
    "cudaMallocAsync"  # torch documentation, PYTORCH_CUDA_ALLOC_CONF: backend; it heeds none of these settings
)


def is_on(config: Mapping[str, Any], knob: str) -> bool:
    """Whether the config has a setting, and it is on.

    Examples
    --------
    >>> is_on({"expandable_segments": "off"}, "expandable_segments"), is_on({"expandable_segments": True}, "expandable_segments")
    (False, True)
    """
    return has_knob(config, knob) and value_of(config, knob) not in OFF


def device_kind(config: Mapping[str, Any]) -> str | None:
    """Kind of device that the config trains on, without its number; None where it does not say.

    Examples
    --------
    >>> device_kind({"trainer": {"device": "cuda:1"}}), device_kind({})
    ('cuda', None)
    """
    device = knob_or_none(config, "device")
    return device.partition(":")[0] if isinstance(device, str) else None


def why_not_caching(config: Mapping[str, Any]) -> str:
    """Why torch's caching allocator does not serve this training; "" where nothing says so.

    Examples
    --------
    >>> why_not_caching({"device": "cpu"})
    'the training runs on cpu, which the caching allocator of CUDA does not serve'
    """
    kind = device_kind(config)
    if kind is not None and kind not in _WITH_IT:
        return f"the training runs on {kind}, which the caching allocator of CUDA does not serve"
    if has_knob(config, "allocator_backend") and value_of(config, "allocator_backend") == _OTHER_BACKEND:
        return f"the allocator's backend is {_OTHER_BACKEND}, which does not heed this setting"
    return ""
