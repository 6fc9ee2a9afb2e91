"""Requests and frees of a memory snapshot in the form in which a simulated allocator takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from perfnb.prediction import Unknown
from perfnb.read.memory_snapshot.allocator_settings import AllocatorSettings
from perfnb.read.memory_snapshot.reader import START_STATE
from perfnb.run import Run

ALLOC, FREE, REQUEST_FREE, COMPLETE_FREE = range(4)
NEEDS: Final = "a memory snapshot with its history: torch.cuda.memory._record_memory_history(), then _dump_snapshot(path)"

_PRIVATE: Final = "private:"
_COLUMNS: Final = ("sequence", "action", "address", "bytes", "requested_bytes", "stream", "pool")

Step = tuple[int, int, int, int, str | None, int]
"""Kind, number of the request, bytes, stream, private pool, sequence of the row."""


@dataclass(frozen=True, slots=True, eq=False)
class AllocatorEvents:
    """What happened on one device, addresses left out: each request has a number, by which it is freed.

    Attributes
    ----------
    steps
        In their order; a request that failed is made and freed at once.
    recorded_reserved_bytes
        Highest reserved bytes of the recording.
    recorded_allocated_bytes
        Highest allocated bytes of the recording.
    settings
        Of the allocator that was recorded.
    """

    steps: tuple[Step, ...]
    recorded_reserved_bytes: int
    recorded_allocated_bytes: int
    settings: AllocatorSettings

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.steps)


def allocator_events(run: Run, rank: int = 0, device: int = 0) -> AllocatorEvents | Unknown:
    """Requests and frees of a device; Unknown with what is missing where the run cannot be replayed.

    Parameters
    ----------
    run
        `perfnb.read_memory_snapshot(path)`.
    rank, device
        Whose.
    """
    rows = device_rows(run, rank, device)
    if isinstance(rows, Unknown):
        return rows
    steps: list[Step] = []
    numbers: dict[int, int] = {}
    waiting: dict[int, int] = {}
    for sequence, action, address, size, requested, stream, pool in columns_of(rows):
        private = pool if pool is not None and pool.startswith(_PRIVATE) else None
        if action in ("alloc", "existing", "oom"):
            number = len(steps)
            wanted = size if requested is None else requested
            steps.append((ALLOC, number, wanted, stream, private, sequence))
            if action == "oom":
                steps.append((FREE, number, 0, stream, private, sequence))
            else:
                numbers[address] = number
        elif action == "free_requested" and address in numbers:
            number = waiting[address] = numbers.pop(address)
            steps.append((REQUEST_FREE, number, 0, stream, private, sequence))
        elif action == "free_completed" and address in waiting:
            number = waiting.pop(address)
            last = steps[-1]
            if last[0] == REQUEST_FREE and last[1] == number:  # nothing between the two: no other stream was waited for
                steps[-1] = (FREE, *last[1:])
            else:
                steps.append((COMPLETE_FREE, number, 0, stream, private, sequence))
    settings = AllocatorSettings().with_knobs(run.config)
    return AllocatorEvents(tuple(steps), int(rows["reserved_bytes"].max()), int(rows["allocated_bytes"].max()), settings)


def device_rows(run: Run, rank: int, device: int) -> pd.DataFrame | Unknown:
    """Rows of a device in their order; Unknown where they do not hold what a replay needs."""
    rows = run.allocations
    if rows.empty:
        return Unknown(run.missing.get("allocations", "no single allocations were recorded"), NEEDS)
    rows = rows[rows["rank"].eq(rank) & rows["device"].eq(device)]
    if rows.empty:
        return Unknown(f"no allocations of rank {rank}, device {device} were recorded", NEEDS)
    if rows["sequence"].isna().any() or not rows["action"].isin(("alloc", "existing")).any():
        return Unknown("a trace tells neither which allocation needed a new segment nor what was asked for", NEEDS)
    if START_STATE in run.missing:
        return Unknown(run.missing[START_STATE], NEEDS)
    return rows.sort_values("sequence", kind="stable")


def columns_of(rows: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Rows as tuples of (sequence, action, address, bytes, requested bytes or None, stream, pool)."""
    whole = [
        rows[name].fillna(-1).astype("int64").tolist() for name in ("sequence", "address", "bytes", "requested_bytes", "stream")
    ]
    sequence, address, size, requested, stream = whole
    if rows["sequence"].min() < 0:  # they are real numbers, and never missing here
        sequence = rows["sequence"].astype("int64").tolist()
    asked = [None if one < 0 else one for one in requested]
    action, pool = (rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in ("action", "pool"))
    return list(zip(sequence, action, address, size, asked, stream, pool, strict=True))
