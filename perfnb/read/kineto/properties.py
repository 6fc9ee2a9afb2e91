"""What a trace states of its devices: multiprocessors and compute capability, as constants of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

_LARGEST: Final = 2**31  # no device has as many of anything that is counted here


def constants_of(devices: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
    """Constants that all listed devices share.

    Parameters
    ----------
    devices
        `deviceProperties` of a trace: numSms are multiprocessors (NVIDIA) or compute units (AMD).

    Examples
    --------
    >>> dict(constants_of([{"numSms": 108, "computeMajor": 8, "computeMinor": 0}]))
    {'multiprocessors': 108.0, 'compute_capability': 8.0}
    """
    found = {}
    count = _shared(devices, "numSms")
    if count:
        found["multiprocessors"] = float(count)
    major, minor = _shared(devices, "computeMajor"), _shared(devices, "computeMinor")
    if major is not None and minor is not None:
        found["compute_capability"] = major + minor / 10
    return MappingProxyType(found)


def _shared(devices: Sequence[Mapping[str, Any]], name: str) -> int | None:
    values = [each.get(name) for each in devices]
    first = values[0] if values else None
    if type(first) is not int or not 0 <= first < _LARGEST or any(value != first for value in values):
        return None
    return first
