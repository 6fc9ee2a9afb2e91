"""What other settings or less memory would do: the requests of a memory snapshot through a simulated caching allocator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import NoRoomError
from perfnb.prediction import Unknown
from perfnb.read.memory_snapshot.allocator_settings import KNOBS, MIB, AllocatorSettings
from perfnb.read.memory_snapshot.out_of_memory import OutOfMemory
from perfnb.run import Run
from perfnb.whatif.allocator_events import ALLOC, COMPLETE_FREE, FREE, AllocatorEvents, allocator_events
from perfnb.whatif.caching_allocator import RULES, CachingAllocator

CAPACITY_STEP: Final = 16 * MIB
_STEPS_ABOVE: Final = 3  # a larger capacity may fail where a smaller one did not: other blocks are flushed
_MOST_BISECTIONS: Final = 4
_RULE_OF_KNOB: Final = MappingProxyType({knob: knob for knob in KNOBS if knob in RULES} | {"memory_fraction": "no_room"})


@dataclass(frozen=True, slots=True)
class OutOfRoom:
    """Where a replay failed.

    Attributes
    ----------
    sequence
        The row of table allocations whose request found no room.
    error
        Its numbers; `error.verdict` says whether memory was short or in pieces.
    """

    sequence: int
    error: OutOfMemory


@dataclass(frozen=True, slots=True)
class Replay:
    """What a simulated allocator did with the requests; up to the failure where there was one.

    Attributes
    ----------
    settings
        Its settings.
    peak_requested_bytes, peak_allocated_bytes, peak_reserved_bytes
        Highest values.
    efficiency_share, rounding_share, holes_share, cache_share
        Of the reserved bytes at the moment of the allocated peak: asked for, lost to rounding, free parts of segments in use,
        the rest; they sum to 1. The holes of expandable segments count as cache, as torch does not count them.
    retries, device_allocs, device_frees
        Counters.
    out_of_room
        Where it failed; None where it completed.
    """

    settings: AllocatorSettings
    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    efficiency_share: float
    rounding_share: float
    holes_share: float
    cache_share: float
    retries: int
    device_allocs: int
    device_frees: int
    out_of_room: OutOfRoom | None


def replay_events(
    events: AllocatorEvents,
    settings: AllocatorSettings | None = None,
    capacity: int | None = None,
    *,
    allowed: int | None = None,
) -> Replay:
    """The requests from an empty allocator on.

    It starts empty, while the recorded one had a history; so use differences between two replays.

    Parameters
    ----------
    events
        `allocator_events(run)`.
    settings
        Other settings than the recorded ones.
    capacity
        Bytes that the device gives at most.
    allowed
        Bytes that a memory fraction allows.
    """
    settings = settings or events.settings
    allocator = CachingAllocator(settings, capacity, allowed=allowed)
    malloc, free = allocator.malloc, allocator.free
    failed, peak, shares = None, 0, (0, 0, 0, 0)
    try:
        for step in events.steps:
            kind, number, requested, stream, private, _ = step
            if kind == ALLOC:
                malloc(number, requested, stream, private)
                if allocator.allocated_bytes > peak:
                    peak = allocator.allocated_bytes
                    shares = _state(allocator)
            elif kind == FREE:
                free(number)
            elif kind == COMPLETE_FREE:
                allocator.complete_free(number)
            else:
                allocator.request_free(number)
    except NoRoomError as error:
        failed = OutOfRoom(step[5], _out_of_memory(error, allocator))
    requested, active, holes, reserved = shares
    whole = reserved or 1
    return Replay(
        settings,
        allocator.peak_requested_bytes,
        allocator.peak_allocated_bytes,
        allocator.peak_reserved_bytes,
        requested / whole,
        (active - requested) / whole,
        holes / whole,
        (reserved - active - holes) / whole,
        allocator.retries,
        allocator.device_allocs,
        allocator.device_frees,
        failed,
    )


def smallest_capacity(events: AllocatorEvents, settings: AllocatorSettings | None = None) -> int:
    """Smallest capacity in which the replay completes, flushes of the cache allowed, to 16 MiB; simulated, not validated.

    Parameters
    ----------
    events
        `allocator_events(run)`.
    settings
        Other settings than the recorded ones.
    """
    settings = settings or events.settings
    free = replay_events(events, settings)
    too_small, enough = free.peak_allocated_bytes - 1, free.peak_reserved_bytes
    for _ in range(_MOST_BISECTIONS):
        while enough - too_small > CAPACITY_STEP:
            middle = (too_small + enough) // 2
            if replay_events(events, settings, middle).out_of_room is None:
                enough = middle
            else:
                too_small = middle
        above = [enough + step * CAPACITY_STEP for step in range(1, _STEPS_ABOVE + 1)]
        failed = [one for one in above if one < free.peak_reserved_bytes and _fails(events, settings, one)]
        if not failed:
            break
        too_small, enough = failed[-1], free.peak_reserved_bytes
    return enough


@dataclass(frozen=True, slots=True)
class AllocatorPrediction:
    """Memory with other settings of the allocator; every number is simulated.

    Attributes
    ----------
    before_reserved_bytes
        The recorded peak.
    after_reserved_bytes
        That plus what the change makes in the replay.
    before_required_bytes, after_required_bytes
        Smallest capacity that completes; None where it was not asked for, as each takes a dozen replays.
    before, after
        The two replays.
    unvalidated
        Rules that the change uses and no recording has confirmed.
    """

    before_reserved_bytes: int
    after_reserved_bytes: int
    before_required_bytes: int | None
    after_required_bytes: int | None
    before: Replay
    after: Replay
    unvalidated: tuple[str, ...]

    @property
    def is_validated(self) -> bool:
        """Whether recordings confirm every rule that it uses; finding `required` uses one that none does."""
        return not self.unvalidated


def predict_allocator(
    run: Run,
    changes: Mapping[str, Any],
    rank: int = 0,
    device: int = 0,
    capacity_bytes: int | None = None,
    *,
    with_required: bool = False,
) -> AllocatorPrediction | Unknown:
    """Memory if the allocator had other settings.

    Parameters
    ----------
    run
        `perfnb.read_memory_snapshot(path)`.
    changes
        Knob to its new value: expandable_segments, max_split_size_mb, roundup_power2_divisions, garbage_collection_threshold,
        memory_fraction.
    rank, device
        Whose memory.
    capacity_bytes
        Memory of the device; needed for memory_fraction, without which garbage_collection_threshold has no effect.
    with_required
        Whether to find the smallest capacity that completes as well, before and after.
    """
    unknown = [knob for knob in changes if knob not in KNOBS and knob != "memory_fraction"]
    if unknown:
        return Unknown(f"no setting of the allocator: {', '.join(unknown)}", f"one of {', '.join((*KNOBS, 'memory_fraction'))}")
    events = allocator_events(run, rank, device)
    if isinstance(events, Unknown):
        return events
    fraction = value_of(changes, "memory_fraction") if has_knob(changes, "memory_fraction") else None
    if fraction is not None and capacity_bytes is None:
        return Unknown("a memory fraction is of the device's memory, which the snapshot does not tell", "capacity_bytes")
    after = events.settings.with_knobs(changes)
    if after.garbage_collection_threshold and fraction is None:
        return Unknown("without a memory fraction the threshold has no effect", "memory_fraction together with it")
    allowed = None if fraction is None or capacity_bytes is None else int(fraction * capacity_bytes)
    plain, changed = replay_events(events), replay_events(events, after, allowed=allowed)
    recorded = events.recorded_reserved_bytes
    return AllocatorPrediction(
        recorded,
        recorded + changed.peak_reserved_bytes - plain.peak_reserved_bytes,
        smallest_capacity(events) if with_required else None,
        smallest_capacity(events, after) if with_required else None,
        plain,
        changed,
        tuple(sorted({_RULE_OF_KNOB.get(knob, knob) for knob in changes} | ({"no_room"} if with_required else set()))),
    )


def compare_settings(
    run: Run, settings: Mapping[str, Mapping[str, Any]], rank: int = 0, device: int = 0, capacity_bytes: int | None = None
) -> pd.DataFrame | Unknown:
    """Memory with each of several settings.

    Returns
    -------
    pandas.DataFrame
        One row per name: setting, reserved_bytes and required_bytes with it, reserved_change_bytes and required_change_bytes
        against the present ones (below 0: saved), retries, device_allocs, completed and is_validated. All simulated.
    """
    rows = []
    for name, changes in settings.items():
        found = predict_allocator(run, changes, rank, device, capacity_bytes, with_required=True)
        if isinstance(found, Unknown):
            return found
        required = found.before_required_bytes or 0, found.after_required_bytes or 0
        rows.append(
            {
                "setting": name,
                "reserved_bytes": found.after_reserved_bytes,
                "reserved_change_bytes": found.after_reserved_bytes - found.before_reserved_bytes,
                "required_bytes": required[1],
                "required_change_bytes": required[1] - required[0],
                "retries": found.after.retries,
                "device_allocs": found.after.device_allocs,
                "completed": found.after.out_of_room is None,
                "is_validated": found.is_validated,
            }
        )
    return pd.DataFrame(rows)


def _fails(events: AllocatorEvents, settings: AllocatorSettings, capacity: int) -> bool:
    return replay_events(events, settings, capacity).out_of_room is not None


def _state(allocator: CachingAllocator) -> tuple[int, int, int, int]:
    return allocator.requested_bytes, allocator.active_bytes, allocator.inactive_split_bytes, allocator.reserved_bytes


def _out_of_memory(error: NoRoomError, allocator: CachingAllocator) -> OutOfMemory:
    """The failure in the numbers of a real one: what the device would have had free is what is not reserved."""
    return OutOfMemory(
        wanted_bytes=error.wanted,
        total_bytes=allocator.capacity,
        free_bytes=max(error.capacity - error.reserved, 0),
        allocated_bytes=error.allocated,
        reserved_unallocated_bytes=error.reserved - error.allocated,
    )
