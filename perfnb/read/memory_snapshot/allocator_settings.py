"""Settings of torch's CUDA caching allocator, and the sizes that follow from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError

MIB: Final = 1 << 20
# torch 2.13, c10/core/AllocatorConfig.h
SMALLEST_BLOCK: Final = 512
LARGEST_SMALL: Final = MIB
SMALL_SEGMENT: Final = 2 * MIB
LEAST_OF_OWN_SIZE: Final = 10 * MIB  # from here on a segment is as large as the block it is made for
SEGMENT_STEP: Final = 2 * MIB
_INTERVALS: Final = 16  # of roundup_power2_divisions: 1 MiB to 64 GiB
_LARGEST_UNSPLIT_FLOOR_MIB: Final = 20  # torch refuses a smaller max_split_size_mb

_PAIR: Final = re.compile(r"(\w+)\s*:\s*(\[[^\]]*\]|[^,\s]+)")
_OFF: Final = (None, False, "off", "False", "none", "")


@dataclass(frozen=True, slots=True)
class AllocatorSettings:
    """How the allocator rounds, splits and grows.

    Attributes
    ----------
    expandable_segments
        Segments grow by granules instead of being made for a block.
    max_split_bytes
        Blocks from this size on are never split; None: all may be.
    roundup_power2_divisions
        Parts of the space between two powers of two to which sizes are rounded up, from 1 MiB to 64 GiB; 0 or 1: not. Empty: not.
    garbage_collection_threshold
        Share of the allowed memory above which unused segments are given back; 0: never. Without a memory fraction it has no
        effect.
    max_non_split_rounding_bytes
        A block that may not be split is handed out if it is larger by less than this.
    large_segment_bytes
        Size of a segment that is made for a block below 10 MiB, and granule of expandable large segments.
    """

    expandable_segments: bool = False
    max_split_bytes: int | None = None
    roundup_power2_divisions: tuple[int, ...] = ()
    garbage_collection_threshold: float = 0.0
    max_non_split_rounding_bytes: int = 20 * MIB
    large_segment_bytes: int = 20 * MIB

    def rounded(self, requested: int) -> int:
        """Size of the block that a request needs.

        Examples
        --------
        >>> AllocatorSettings().rounded(513), AllocatorSettings(roundup_power2_divisions=(4,) * 16).rounded(2560 * 1024)
        (1024, 2621440)
        """
        if requested < SMALLEST_BLOCK:
            return SMALLEST_BLOCK
        if self.roundup_power2_divisions:
            power = requested.bit_length() - 1
            place = min(max(power - 20, 0), len(self.roundup_power2_divisions) - 1)  # 2**20: 1 MiB
            divisions = self.roundup_power2_divisions[place]
            if divisions > 1 and requested > SMALLEST_BLOCK * divisions:
                step = (1 << power) >> (divisions.bit_length() - 1)
                return -(-requested // step) * step
        return -(-requested // SMALLEST_BLOCK) * SMALLEST_BLOCK

    def segment_for(self, rounded: int) -> int:
        """Size of the segment that is asked of the device for a block, where segments do not expand."""
        if rounded <= LARGEST_SMALL:
            return SMALL_SEGMENT
        if rounded < LEAST_OF_OWN_SIZE:
            return self.large_segment_bytes
        return -(-rounded // SEGMENT_STEP) * SEGMENT_STEP

    def granule(self, *, is_small: bool) -> int:
        """What an expandable segment grows by."""
        return SMALL_SEGMENT if is_small else self.large_segment_bytes

    def splits(self, block: int, rounded: int, *, is_small: bool) -> bool:
        """Whether the rest of a block that is larger than needed becomes a free block of its own."""
        rest = block - rounded
        if is_small or self.expandable_segments:
            return rest >= SMALLEST_BLOCK
        return rest > LARGEST_SMALL and (self.max_split_bytes is None or rounded < self.max_split_bytes)

    def with_knobs(self, knobs: Mapping[str, Any]) -> AllocatorSettings:
        """Settings with those knobs of a config changed: expandable_segments, max_split_size_mb, roundup_power2_divisions, ...

        Raises
        ------
        ConfigError
            If a knob has a value that the allocator cannot have.

        Examples
        --------
        >>> AllocatorSettings().with_knobs({"max_split_size_mb": 128}).max_split_bytes
        134217728
        """
        changed: dict[str, Any] = {}
        for knob in KNOBS:
            if has_knob(knobs, knob):
                value = value_of(knobs, knob)
                try:
                    changed |= _field(knob, value)
                except (ValueError, TypeError, OverflowError) as error:
                    message = f"{knob} of the allocator cannot be {value!r}: {error}"
                    raise ConfigError(message) from None
        return replace(self, **changed)

    @property
    def knobs(self) -> dict[str, Any]:
        """The settings under the names that a config gives them; None is the default."""
        divisions = self.roundup_power2_divisions
        return {
            "expandable_segments": self.expandable_segments,
            "max_split_size_mb": None if self.max_split_bytes is None else self.max_split_bytes // MIB,
            "roundup_power2_divisions": None if not divisions else divisions[0] if len(set(divisions)) == 1 else list(divisions),
            "garbage_collection_threshold": self.garbage_collection_threshold or None,
            "max_non_split_rounding_mb": self.max_non_split_rounding_bytes // MIB,
            "large_segment_size_mb": self.large_segment_bytes // MIB,
        }


KNOBS: Final = tuple(AllocatorSettings().knobs)


def settings_of_text(text: str) -> AllocatorSettings:
    """Settings that `PYTORCH_CUDA_ALLOC_CONF` names; what is not known or not a number is left at its default.

    Examples
    --------
    >>> settings_of_text("expandable_segments:True,max_split_size_mb:64").knobs["max_split_size_mb"]
    64
    """
    settings = AllocatorSettings()
    for name, value in _PAIR.findall(text[:10_000]):
        if name in KNOBS:
            try:
                settings = replace(settings, **_field(name, _listed(value) if value.startswith("[") else value))
            except (ValueError, OverflowError):
                continue
    return settings


def settings_of_snapshot(told: Mapping[str, Any]) -> AllocatorSettings:
    """Settings from what a snapshot says in `allocator_settings`; empty is the default of torch."""
    settings = settings_of_text(str(told.get("PYTORCH_CUDA_ALLOC_CONF", "")))
    found: dict[str, Any] = {}
    most = told.get("max_split_size")
    if type(most) is int:
        found["max_split_bytes"] = most if 0 <= most < 1 << 62 else None  # -1: unlimited
    if type(told.get("expandable_segments")) is bool:
        found["expandable_segments"] = told["expandable_segments"]
    threshold = told.get("garbage_collection_threshold")
    if isinstance(threshold, int | float) and 0 <= threshold < 1:
        found["garbage_collection_threshold"] = float(threshold)
    divisions = told.get("roundup_power2_divisions")
    if isinstance(divisions, dict):
        found["roundup_power2_divisions"] = _divisions([value for value in divisions.values() if type(value) is int])
    return replace(settings, **found)


def _field(knob: str, value: Any) -> dict[str, Any]:
    if knob == "expandable_segments":
        return {"expandable_segments": value not in _OFF}
    if knob == "roundup_power2_divisions":
        if value in _OFF:
            return {"roundup_power2_divisions": ()}
        values = list(value) if isinstance(value, list | tuple) else [int(value)] * _INTERVALS
        return {"roundup_power2_divisions": _divisions(values)}
    if knob == "garbage_collection_threshold":
        return {"garbage_collection_threshold": 0.0 if value in _OFF else float(value)}
    if knob == "max_split_size_mb":
        return {"max_split_bytes": None if value in _OFF else max(int(value), _LARGEST_UNSPLIT_FLOOR_MIB) * MIB}
    name = {"max_non_split_rounding_mb": "max_non_split_rounding_bytes", "large_segment_size_mb": "large_segment_bytes"}[knob]
    return {} if value in _OFF else {name: int(value) * MIB}


def _divisions(values: list[int]) -> tuple[int, ...]:
    """Sixteen powers of two, or nothing where none of them rounds."""
    whole = tuple(value if 0 < value < 1 << 20 and value & (value - 1) == 0 else 0 for value in values[:_INTERVALS])
    return whole if any(value > 1 for value in whole) else ()


def _listed(text: str) -> list[int]:
    """`[64:8,256:4,>:1]` as sixteen divisions: those below the first bound have its own, those between keep 0."""
    found = [0] * _INTERVALS
    last = -1
    for bound, value in re.findall(r"(>|\d{1,9})\s*:\s*(\d{1,9})", text):
        place = _INTERVALS if bound == ">" else min(max(int(bound).bit_length() - 1, 0), _INTERVALS - 1)
        if bound == ">" or last < 0:
            found[last + 1 : place] = [int(value)] * len(found[last + 1 : place])
        if place < _INTERVALS:
            found[place] = int(value)
        last = place
    return found
