"""Recordings of the ranks of one job, in memory or read from their files -> a Run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import pandas as pd

from perfnb import tables
from perfnb.read.kineto.reader import stacked
from perfnb.read.recorded_clock import common_clock
from perfnb.read.recorded_columns import restored
from perfnb.read.recorded_rank import RankTables, first_ns, rank_tables
from perfnb.read.recorded_reasons import machine, signals_and_missing, standing
from perfnb.run import Run
from perfnb.schemas import SCHEMAS

_TABLES: Final = tuple(SCHEMAS)


class Recorded(Protocol):
    """What was recorded of one rank: a `perfnb.record.sink.MemorySink`, or a `RankRecording`.

    Where it has an attribute `rank_folder`, the traces of a profiler's window are read from there.
    """

    @property
    def header(self) -> Mapping[str, Any]:
        """See `perfnb.record.header.header`."""
        ...

    @property
    def rows(self) -> Mapping[str, Sequence[Sequence[Any]]]:
        """Table to its rows, see `perfnb.record.rows.COLUMNS`."""
        ...

    @property
    def state(self) -> str:
        """How it stands, see `perfnb.run.Recording`."""
        ...

    @property
    def reason(self) -> str:
        """Why it ended, in words."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RankRecording:
    """What was recorded of one rank, as its files tell; see `Recorded`.

    Attributes
    ----------
    header, rows, state, reason
        See `Recorded`.
    notes
        Sentences on what its files lack.
    rank_folder
        Where they are.
    """

    header: Mapping[str, Any]
    rows: Mapping[str, Sequence[Sequence[Any]]]
    state: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    rank_folder: Path | None = field(default=None)


def run_of(recordings: Sequence[Recorded], source: Sequence[str] = ("recording",), notes: Sequence[str] = ()) -> Run:
    """Run of what was recorded.

    Times are microseconds since the first event of all ranks. Ranks of one boot of one machine share a clock; others are set
    by their clocks of the day. CPU, run-queue and blocked time of each phase sum to its wall time, and the phases of a step to
    the step.

    Parameters
    ----------
    recordings
        One per rank, of one job.
    source
        Base names of what was read.
    notes
        Sentences that come first in the run's own.

    Returns
    -------
    Run
        With the state of each rank's recording in `Run.recordings`.

    Examples
    --------
    >>> from perfnb.record.sink import MemorySink
    >>> sink = MemorySink({"rank": 0, "world_size": 1, "monotonic_ns": 5000, "wall_ns": 0})
    >>> sink.append("steps", [(0, 5_000, 9_000, False, 0, 1)])
    >>> run_of([sink]).steps["duration_us"].to_list()
    [4.0]
    """
    ordered = sorted(recordings, key=lambda each: int(each.header["rank"]))
    headers = [each.header for each in ordered]
    offsets, clock_note = common_clock(headers)
    starts = [start + offset for each, offset in zip(ordered, offsets, strict=True) if (start := first_ns(each)) is not None]
    origin = min(starts, default=int(headers[0]["monotonic_ns"]))
    ranks = [rank_tables(each, origin - offset) for each, offset in zip(ordered, offsets, strict=True)]
    made: dict[str, Any] = {name: tables.conform(name, stacked([_conformed(name, each) for each in ranks])) for name in _TABLES}
    world_size = max((size for each in headers if isinstance(size := each.get("world_size"), int)), default=None)
    signals, missing = signals_and_missing(made, headers, ranks, world_size)
    if clock_note:
        missing["cross_rank_times"] = clock_note
    told = [*notes, *(standing(each, len(ranks)) for each in ranks), clock_note, _fewer(len(ranks), world_size)]
    told += [_of_rank(note, each.rank, len(ranks)) for each in ranks for note in each.notes]
    return Run(
        **made,
        config=_config(ordered, ranks),
        machine=machine(headers),
        signals=signals,
        missing=MappingProxyType(missing),
        notes=tuple(dict.fromkeys(note for note in told if note)),
        world_size=world_size,
        source=tuple(source),
        recordings=tuple(each.recording for each in ranks),
    )


def _conformed(name: str, rank: RankTables) -> pd.DataFrame:
    frame = rank.frames.get(name)
    return tables.empty(name) if frame is None or frame.empty else tables.conform(name, frame.assign(rank=rank.rank))


def _of_rank(note: str, rank: int, count: int) -> str:
    return f"rank {rank}: {note}" if count > 1 else note


def _fewer(count: int, world_size: int | None) -> str:
    if world_size is None or count >= world_size:
        return ""
    return f"read {count} of {world_size} ranks: answers that need all of them say so"


def _config(ordered: Sequence[Recorded], ranks: Sequence[RankTables]) -> Mapping[str, Any]:
    """What the user gave over what was seen; the lowest rank's where ranks differ."""
    config: dict[str, Any] = {}
    for each, rank in reversed(list(zip(ordered, ranks, strict=True))):
        given = each.header.get("config")
        config |= {**rank.seen, **(restored(given) if isinstance(given, Mapping) else {})}
    return MappingProxyType(config)
