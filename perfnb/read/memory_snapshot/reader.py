"""Memory snapshots as runs: what the caching allocator held, handed out and got back, event by event."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Final

import pandas as pd

from perfnb import tables
from perfnb.read.memory_snapshot.allocator_settings import settings_of_snapshot
from perfnb.read.memory_snapshot.content import plain_content
from perfnb.read.memory_snapshot.layout import RECORD_HINT, Events, Layout, layout_of
from perfnb.read.memory_snapshot.out_of_memory import OutOfMemory
from perfnb.read.memory_snapshot.plain_pickle import Limits
from perfnb.read.memory_snapshot.rows import DeviceRows, device_rows
from perfnb.read.memory_snapshot.timeline_file import timeline_run
from perfnb.run import Run

START_STATE: Final = "memory_start_state"
"""Key of `Run.missing` where the events of a snapshot do not fit the state at its end."""

_MOST_NAMED: Final = 3
_NO_EVENTS: Final = Events([], [], [], [], [], [], [])
_NOT_IN_A_SNAPSHOT: Final = (
    "steps",
    "phases",
    "host_ops",
    "device_ops",
    "collectives",
    "allocator",
    "gpu_samples",
    "host_samples",
    "training",
)


def read_memory_snapshot(path: str | PathLike[str], rank: int = 0, limits: Limits | None = None) -> Run:
    """Allocations and frees of a memory snapshot, with the segments behind them.

    Reads what `torch.cuda.memory._dump_snapshot` writes, without running anything that is in it; perfnb's own JSON form without
    frames; and the JSON files of torch's older `export_memory_timeline`. Gzip or not, known by content. Not validated on a GPU
    by our own hand.

    Parameters
    ----------
    path
        The file.
    rank
        Rank whose memory it is; the file does not say.
    limits
        What it may take of memory and time.

    Returns
    -------
    Run
        Table allocations, per device in the order of `sequence`. Rows with a `sequence` below 0 hold the state before the first
        event, so that the table alone can be replayed. `bytes` counts whole blocks: they follow from the allocator's rules and
        from where each block really was. `config` holds the allocator's settings under the names of knobs. `missing` says what
        the file cannot tell, `notes` what was odd.

    Raises
    ------
    SnapshotFormatError
        If the file is no snapshot, is damaged, or is over a limit: says what to do.
    UnsafePickle
        If the pickle holds more than plain data; nothing of it was run.
    """
    file = Path(path).expanduser()
    kind, plain = plain_content(file, limits or Limits())
    if kind == "timeline":
        return timeline_run(plain, file.name, rank)
    layout = layout_of(plain, file.name)
    settings = settings_of_snapshot(layout.settings)
    times = [one for events in layout.events.values() for one in events.time_us if one is not None]
    origin = min(times, default=0.0)
    devices = sorted({*layout.segments, *layout.events})
    parts = {
        device: device_rows(device, layout.segments.get(device, []), layout.events.get(device, _NO_EVENTS), settings, origin)
        for device in devices
    }
    frames = [part.frame for part in parts.values()]
    allocations = (
        pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0] if frames else tables.empty("allocations")
    )
    missing = dict.fromkeys(_NOT_IN_A_SNAPSHOT, "a memory snapshot does not tell")
    contradictions = [f"device {device}: {part.contradiction}" for device, part in parts.items() if part.contradiction]
    if contradictions:
        missing[START_STATE] = "; ".join(contradictions)
    return Run(
        allocations=tables.conform("allocations", allocations.assign(rank=rank)),
        config=settings.knobs if layout.settings else {},
        signals=frozenset({"allocations"}),
        missing=missing,
        notes=tuple(_notes(layout, parts)),
        source=(file.name,),
    )


def _notes(layout: Layout, parts: dict[int, DeviceRows]) -> list[str]:
    notes = []
    if not layout.events:
        notes.append(f"the snapshot has a state and no events: {RECORD_HINT}")
    if not layout.settings:
        notes.append("the snapshot does not tell the allocator's settings: torch's defaults are assumed")
    for device, part in parts.items():
        if part.contradiction:
            notes.append(f"device {device}: {part.contradiction}; totals are not known")
        if part.guessed:
            notes.append(
                f"device {device}: {part.guessed:,} events have no block where the rules put one: theirs are requests, rounded"
            )
        notes += _out_of_memory_notes(device, part.frame, layout.events.get(device, _NO_EVENTS))
    if layout.unknown:
        named = ", ".join(f"{name} ({count:,})" for name, count in list(layout.unknown.items())[:_MOST_NAMED])
        notes.append(f"left out what is not known or too much: {named}")
    return notes


def _out_of_memory_notes(device: int, frame: pd.DataFrame, events: Events) -> list[str]:
    """What each out-of-memory event was: a sentence of the first few."""
    found = []
    failed = frame.loc[frame["action"].eq("oom"), ["sequence", "bytes", "allocated_bytes", "reserved_bytes"]].head(_MOST_NAMED)
    for sequence, wanted, allocated, reserved in failed.astype(object).to_numpy().tolist():
        error = OutOfMemory(
            wanted_bytes=wanted,
            device=device,
            free_bytes=events.device_free.get(sequence),
            allocated_bytes=None if pd.isna(allocated) else allocated,
            reserved_unallocated_bytes=None if pd.isna(reserved) else reserved - allocated,
        )
        found.append(f"device {device} ran out of memory at event {sequence:,}: {error.verdict}")
    return found
