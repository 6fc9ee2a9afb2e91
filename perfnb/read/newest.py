"""What a recording tells of now: the newest value of everything that is sampled, the pace of the steps, and the last minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from perfnb.read.recorded import Recorded
from perfnb.read.recorded_columns import names_of

PACE_S: Final = 10.0
"""The pace is that of the steps which ended in so many seconds before the last one."""

MOST_POINTS: Final = 120
"""Points of each line of the history."""

MOST_GPUS: Final = 4
"""GPUs that have a line in the history; all have their newest values."""

_NS: Final = 1e9
_TIMES: Final = (("steps", "end_ns"), ("host_samples", "time_ns"), ("gpu_samples", "time_ns"), ("values", "time_ns"))
_NOTHING: Final[Mapping[str, float]] = MappingProxyType({})
_NO_REASONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as it was sampled last.

    Attributes
    ----------
    number
        As the driver counts.
    newest
        Column of `gpu_samples` to its newest value.
    reasons
        Column to why it could not be read; "" for the whole.
    """

    number: int
    newest: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=lambda: _NO_REASONS)


@dataclass(frozen=True, slots=True)
class RankNow:
    """One rank as it stands.

    Attributes
    ----------
    rank, host
        Its number, and the name of its machine.
    state, reason
        "running", "finished", "failed" or "killed", and why.
    age_s
        How old its newest row is; NaN where it has none.
    step
        The last step that ended; None before one did.
    steps_per_s, step_us, data_share
        Pace, mean step and share of it spent waiting for data, over the last `PACE_S` seconds; NaN where not known.
    loss
        The last loss that was told; NaN where none was.
    host_values, host_reasons
        Column of `host_samples` to its newest value, or to why there is none; "" for the whole.
    devices
        GPUs, by number.
    no_devices
        Why no GPU was sampled.
    """

    rank: int
    host: str
    state: str
    reason: str
    age_s: float
    step: int | None = None
    steps_per_s: float = math.nan
    step_us: float = math.nan
    data_share: float = math.nan
    loss: float = math.nan
    host_values: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    host_reasons: Mapping[str, str] = field(default_factory=lambda: _NO_REASONS)
    devices: tuple[Device, ...] = ()
    no_devices: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """A recording as it stands.

    Attributes
    ----------
    ranks
        Those that were read, in order.
    world_size
        Ranks of the job; None where unknown.
    history
        Line, seconds before the newest sample (0 or less) and share (0 to 1), of the first rank's machine.
    """

    ranks: tuple[RankNow, ...]
    world_size: int | None = None
    history: tuple[tuple[str, float, float], ...] = field(default=(), repr=False)

    @property
    def is_over(self) -> bool:
        """Whether no rank records any more."""
        return all(each.state != "running" for each in self.ranks)


def now_of(recordings: Sequence[Recorded], wall_ns: int) -> Now:
    """What recordings tell of now.

    Parameters
    ----------
    recordings
        One per rank; their newest rows are enough.
    wall_ns
        The time of the day (time.time_ns).

    Examples
    --------
    >>> from perfnb.record.sink import MemorySink
    >>> sink = MemorySink({"rank": 0, "world_size": 1, "monotonic_ns": 0, "wall_ns": 0, "host": "here"})
    >>> sink.append("steps", [(step, step * 10**8, (step + 1) * 10**8, False, 0, 1) for step in range(5)])
    >>> now_of([sink], 2 * 10**9).ranks[0].steps_per_s, now_of([sink], 2 * 10**9).ranks[0].age_s
    (10.0, 1.5)
    """
    tables = [_Tables(each) for each in recordings]
    sizes = [size for each in recordings if isinstance(size := each.header.get("world_size"), int)]
    return Now(
        tuple(_rank(each, table, wall_ns) for each, table in zip(recordings, tables, strict=True)),
        max(sizes, default=None),
        tuple(_history(tables[0])) if tables else (),
    )


class _Tables:
    """Rows of one rank by the names of their columns; what is no number there is left out."""

    def __init__(self, recording: Recorded) -> None:
        self._recording = recording
        self._names = {table: names_of(table, recording.header) for table in recording.rows}

    def columns(self, table: str, *names: str) -> list[tuple[Any, ...]]:
        """Values of some columns, row by row; rows that are too short, and columns that are not there, give None."""
        known = self._names.get(table, ())
        places = [known.index(name) if name in known else None for name in names]
        return [
            tuple(row[place] if place is not None and place < len(row) else None for place in places)
            for row in self._recording.rows.get(table, ())
        ]

    def names(self, table: str) -> tuple[str, ...]:
        return self._names.get(table, ())

    def reasons(self, table: str, device: int | None = None) -> dict[str, str]:
        """Column to the reason why it is missing, "" for the whole table."""
        return {
            column if isinstance(column, str) else "": str(reason)
            for name, column, of, reason in self.columns("gaps", "table", "column", "device", "reason")
            if name == table and (of is None or of == device)
        }


def _rank(recording: Recorded, tables: _Tables, wall_ns: int) -> RankNow:
    steps = [row for row in tables.columns("steps", "step", "start_ns", "end_ns") if all(_is_number(each) for each in row)]
    last_ns = steps[-1][2] if steps else 0
    recent = [row for row in steps if row[2] >= last_ns - PACE_S * _NS]
    span_ns = last_ns - recent[0][1] if recent else 0
    total_ns = sum(end - start for _, start, end in recent)
    losses = [value for name, value in tables.columns("values", "name", "value") if name == "loss" and _is_number(value)]
    host = recording.header.get("host")
    return RankNow(
        rank=int(recording.header["rank"]),
        host=host if isinstance(host, str) else "",
        state=recording.state,
        reason=recording.reason,
        age_s=_age_s(recording.header, tables, wall_ns),
        step=int(recent[-1][0]) if recent else None,
        steps_per_s=len(recent) / span_ns * _NS if span_ns > 0 else math.nan,
        step_us=total_ns / len(recent) / 1e3 if recent else math.nan,
        data_share=_data_share(tables, {row[0] for row in recent}, total_ns),
        loss=float(losses[-1]) if losses else math.nan,
        host_values=_newest(tables, "host_samples"),
        host_reasons=tables.reasons("host_samples"),
        devices=_devices(tables),
        no_devices=tables.reasons("gpu_samples").get("", ""),
    )


def _age_s(header: Mapping[str, Any], tables: _Tables, wall_ns: int) -> float:
    """Age of the newest row, by the clock of the day: the monotonic clock of another machine says nothing here."""
    moments = [at for table, column in _TIMES for (at,) in tables.columns(table, column)[-1:] if _is_number(at)]
    if not moments:
        return math.nan
    written_ns = int(header["wall_ns"]) + max(moments) - int(header["monotonic_ns"])
    return float(max(wall_ns - written_ns, 0)) / _NS


def _data_share(tables: _Tables, steps: set[Any], total_ns: float) -> float:
    waits = [
        wall
        for step, phase, wall in tables.columns("phases", "step", "phase", "wall_ns")
        if phase == "data" and _is_number(wall) and step in steps
    ]
    return min(sum(waits) / total_ns, 1.0) if waits and total_ns > 0 else math.nan


def _newest(tables: _Tables, table: str, device: int | None = None) -> dict[str, float]:
    """Column to its newest value: some are sampled less often than others."""
    names = tables.names(table)
    found: dict[str, float] = {}
    for row in reversed(tables.columns(table, *names)):
        values = dict(zip(names, row, strict=True))
        if device is None or values.get("gpu") == device:
            found = {name: value for name, value in values.items() if _is_number(value)} | found
        if len(found) == len(names):
            break
    return found


def _devices(tables: _Tables) -> tuple[Device, ...]:
    numbers = sorted({int(gpu) for (gpu,) in tables.columns("gpu_samples", "gpu") if _is_number(gpu)})
    return tuple(Device(each, _newest(tables, "gpu_samples", each), tables.reasons("gpu_samples", each)) for each in numbers)


def _history(tables: _Tables) -> list[tuple[str, float, float]]:
    host = tables.columns("host_samples", "time_ns", "cpu_share", "memory_bytes", "memory_limit_bytes")
    lines: dict[str, list[tuple[float, float]]] = {
        "CPU of the host": [(at, share) for at, share, _, _ in host if _is_number(at) and _is_number(share)],
        "memory of the host": [
            (at, used / limit) for at, _, used, limit in host if all(map(_is_number, (at, used, limit))) and limit > 0
        ],
    }
    for at, gpu, share in tables.columns("gpu_samples", "time_ns", "gpu", "utilization_share"):
        if _is_number(at) and _is_number(gpu) and _is_number(share) and gpu < MOST_GPUS:
            lines.setdefault(f"GPU {int(gpu)}", []).append((at, share))
    newest = max((at for points in lines.values() for at, _ in points), default=0)
    return [
        (line, (at - newest) / _NS, min(max(share, 0.0), 1.0))
        for line, points in lines.items()
        for at, share in points[:: -(-len(points) // MOST_POINTS) or 1]
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
