"""What there is to say of each memory of a run: a verdict, what holds it at its peak, what the allocator made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd

from perfnb.analyses.device_memory import device_memory, fullest_moments, peaks_of
from perfnb.memory_ledger import HeldBlocks, memory_by, memory_peak
from perfnb.memory_ledger_time import memory_over_time
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.text import byte_size, share
from perfnb.whatif.allocator_events import AllocatorEvents, allocator_events
from perfnb.whatif.allocator_replay import compare_settings, replay_events, smallest_capacity

Device = int | Literal["host"]

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "expandable segments": {"expandable_segments": True},
        "never split from 128 MiB": {"max_split_size_mb": 128},
        "never split from 512 MiB": {"max_split_size_mb": 512},
        "rounded to eighths": {"roundup_power2_divisions": 8},
    }
)
"""Settings that are tried on the recorded requests."""

FULL: Final = 0.90
"""Pressure from which on memory is short: torch_tb_profiler 0.4.3 warns from there."""

MOST_REPLAYED: Final = 200_000
"""Events up to which settings are tried: some fifty replays."""

_RAN_OUT: Final = "ran out of memory"
_MOST_STACKS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class MemoryReport:
    """One memory of a run.

    Attributes
    ----------
    rank, device
        Whose; "host" is the host's.
    verdict
        What happened and how near the limit is, in sentences, the most important first.
    sizes
        Name to bytes: peak_allocated_bytes, peak_reserved_bytes, required_bytes (smallest capacity in which a replay completes),
        usable_bytes, capacity_bytes; only those that are known.
    shares
        Of the reserved bytes at one instant, that of the allocated peak: efficiency, rounding, holes, cache; empty where not
        known.
    categories, stacks
        What holds the peak; None where no single allocations were recorded.
    settings
        Other settings of the allocator, simulated (`compare_settings`); None where nothing can be replayed.
    lines
        What holds it over time (`perfnb.memory_ledger_time.memory_over_time`); None where not recorded.
    not_known
        What could not be found out, and why.
    """

    rank: int
    device: Device
    verdict: tuple[str, ...]
    sizes: Mapping[str, int]
    shares: Mapping[str, float]
    categories: pd.DataFrame | None
    stacks: pd.DataFrame | None
    settings: pd.DataFrame | None
    lines: pd.DataFrame | None
    not_known: tuple[str, ...]


def memory_reports(run: Run, config: Mapping[str, Any] | None = None, *, usable_bytes: int | None = None) -> list[MemoryReport]:
    """A report of each memory that a run tells of, devices before the host.

    Parameters
    ----------
    run
        A memory snapshot, a trace recorded with `profile_memory=True`, or a run of `perfnb.record`.
    config
        The training's config; the run's own by default.
    usable_bytes
        Memory of each device less what others hold; by default what the run recorded.
    """
    return [_report(run, run.config if config is None else config, rank, device, usable_bytes) for rank, device in _memories(run)]


def _memories(run: Run) -> Iterator[tuple[int, Device]]:
    seen = pd.concat([run.allocations[["rank", "device"]], run.allocator[["rank", "device"]]]).drop_duplicates()
    seen = seen.sort_values(["rank", "device"], na_position="last")
    for rank, device in seen.itertuples(index=False):
        yield int(rank), "host" if pd.isna(device) else int(device)


def _report(run: Run, config: Mapping[str, Any], rank: int, device: Device, usable_bytes: int | None) -> MemoryReport:
    held = memory_peak(run, rank, device)
    events = allocator_events(run, rank, device) if isinstance(device, int) else Unknown("the host has no caching allocator", "")
    not_known = []
    sizes, shares, settings = _recorded(run, config, rank, device), dict[str, float](), None
    if usable_bytes is not None and device != "host":
        sizes["usable_bytes"] = usable_bytes
    if isinstance(held, HeldBlocks):
        sizes["peak_allocated_bytes"] = max(held.total_bytes, sizes.get("peak_allocated_bytes", 0))
    else:
        not_known.append(f"what holds the memory: {held.reason}")
    if isinstance(events, AllocatorEvents):
        settings = _replayed(run, events, sizes, shares, not_known, rank, device)
    elif device != "host":
        not_known.append(f"what is required, and what other settings would do: {events.reason}; it takes {events.needs}")
        shares = _looked_at(run, rank, device)
    lines = memory_over_time(run, rank, device)
    return MemoryReport(
        rank,
        device,
        tuple(_verdict(run, device, sizes, shares, held)),
        MappingProxyType(sizes),
        MappingProxyType(shares),
        memory_by(held, "category") if isinstance(held, HeldBlocks) else None,
        memory_by(held, "stack").head(_MOST_STACKS) if isinstance(held, HeldBlocks) else None,
        settings,
        None if isinstance(lines, Unknown) else lines,
        tuple(not_known),
    )


def _recorded(run: Run, config: Mapping[str, Any], rank: int, device: Device) -> dict[str, int]:
    """Peaks, capacity and usable bytes of a device that were recorded."""
    if device == "host":
        return {}
    rows = run.allocator if not run.allocator.empty else None
    peaks = peaks_of(rows, None if run.allocations.empty else run.allocations)
    found = device_memory(peaks, run.machine, config, run.gpu_samples)
    own = found[found["rank"].eq(rank) & found["device"].eq(device)]
    names = {
        "allocated_peak_bytes": "peak_allocated_bytes",
        "reserved_peak_bytes": "peak_reserved_bytes",
        "usable_bytes": "usable_bytes",
        "capacity_bytes": "capacity_bytes",
    }
    row = {} if own.empty else own.iloc[0].to_dict()
    return {ours: int(row[name]) for name, ours in names.items() if name in row and not pd.isna(row[name])}


def _replayed(
    run: Run,
    events: AllocatorEvents,
    sizes: dict[str, int],
    shares: dict[str, float],
    not_known: list[str],
    rank: int,
    device: Any,
) -> pd.DataFrame | None:
    """Shares at the peak, what is required and other settings; added to what they go into."""
    plain = replay_events(events)
    shares |= {
        "efficiency": plain.efficiency_share,
        "rounding": plain.rounding_share,
        "holes": plain.holes_share,
        "cache": plain.cache_share,
    }
    if len(events) > MOST_REPLAYED:
        not_known.append(f"what other settings would do: {len(events):,} events are over {MOST_REPLAYED:,}; use compare_settings")
        return None
    sizes["required_bytes"] = smallest_capacity(events)
    made = compare_settings(run, SETTINGS, rank, device, sizes.get("usable_bytes"))
    return None if isinstance(made, Unknown) else made


def _looked_at(run: Run, rank: int, device: Device) -> dict[str, float]:
    """Shares at the look at torch's counters with the most allocated."""
    found = fullest_moments(run.allocator)
    own = found[found["rank"].eq(rank) & found["device"].eq(device)]
    if own.empty or own.iloc[0].isna().any():
        return {}
    row = own.iloc[0]
    return {"efficiency": float(row["requested_share"])} | {
        name: float(row[f"{name}_share"]) for name in ("rounding", "holes", "cache")
    }


def _verdict(
    run: Run, device: Device, sizes: Mapping[str, int], shares: Mapping[str, float], held: HeldBlocks | Unknown
) -> Iterator[str]:
    yield from (note for note in run.notes if _RAN_OUT in note and note.startswith(f"device {device} "))
    ooms = run.allocator["ooms"].max() if not run.allocator.empty else 0
    if device != "host" and not pd.isna(ooms) and ooms > 0:
        yield f"ran out of memory {int(ooms)} times"
    peak, reserved = sizes.get("peak_allocated_bytes"), sizes.get("peak_reserved_bytes")
    needed, usable = sizes.get("required_bytes", reserved), sizes.get("usable_bytes")
    word = "required" if "required_bytes" in sizes else "reserved at most"
    if needed is not None and usable:
        left = usable - needed
        said = (
            "beyond what is usable" if left < 0 else "little is left" if needed > FULL * usable else f"{byte_size(left)} are left"
        )
        yield f"{byte_size(needed)} {word} of {byte_size(usable)} usable ({share(needed / usable)}): {said}"
    elif device != "host":
        yield "how near the limit is cannot be told: the usable memory of the device was not recorded (--usable-gib)"
    if peak is not None and reserved is not None:
        yield f"{byte_size(peak)} allocated at the peak, {byte_size(reserved)} reserved at most"
    elif peak is not None:
        least = "at least " if isinstance(held, HeldBlocks) and held.is_at_least else ""
        yield f"{least}{byte_size(peak)} allocated at the peak"
    if shares:
        parts = ", ".join(f"{name} {share(value)}" for name, value in shares.items())
        yield f"of what was reserved at the allocated peak: {parts}"
