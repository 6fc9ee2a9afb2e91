"""One rank's recording -> its tables, on the clock of all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast

import numpy as np
import pandas as pd

from perfnb import text
from perfnb.read.recorded_columns import Columns, restored, table_of, texts
from perfnb.read.recorded_steps import Told, microseconds, phases_of, steps_of
from perfnb.read.recorded_traces import is_within, traced
from perfnb.read.recorded_values import values_of
from perfnb.record.rows import COLUMNS
from perfnb.run import Recording

_EVENTS: Final = (
    ("steps", "start_ns"),
    ("host_ops", "start_ns"),
    ("values", "time_ns"),
    ("allocator", "time_ns"),
    ("gpu_samples", "time_ns"),
    ("host_samples", "time_ns"),
)
_ENDS: Final = (*_EVENTS, ("steps", "end_ns"), ("host_ops", "end_ns"), ("notes", "time_ns"), ("costs", "time_ns"))
_SAMPLED: Final = ("allocator", "gpu_samples", "host_samples")
_LONGEST_NOTE: Final = 300
_STATES: Final = ("finished", "failed", "running", "killed")


class _Recorded(Protocol):
    """See `perfnb.read.recorded.Recorded`."""

    @property
    def header(self) -> Mapping[str, Any]: ...
    @property
    def rows(self) -> Mapping[str, Sequence[Sequence[Any]]]: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class RankTables:
    """The tables of one rank.

    Attributes
    ----------
    rank
        Its number.
    frames
        Table to rows.
    recording
        How it stands.
    steps_done
        The last step that ended; None where none did.
    notes
        Sentences.
    seen
        What was seen of the training's settings, the last value of each.
    traced_frames
        Those tables of `frames` that a profiler's window filled, without what the recorder itself put there.
    """

    rank: int
    frames: Mapping[str, pd.DataFrame]
    recording: Recording
    steps_done: int | None
    notes: tuple[str, ...]
    seen: Mapping[str, Any]
    traced_frames: Mapping[str, pd.DataFrame]


def first_ns(recorded: _Recorded) -> int | None:
    """Moment of the first event on the rank's own clock; None where nothing happened."""
    return min((int(each.min()) for each in _moments(recorded, _EVENTS)), default=None)


def rank_tables(recorded: _Recorded, origin_ns: int) -> RankTables:
    """Tables of a recording.

    Parameters
    ----------
    recorded
        One rank's.
    origin_ns
        The run's first event, on the rank's own clock.
    """
    header, rank = recorded.header, int(recorded.header["rank"])
    columns = {table: Columns(table, header, recorded.rows.get(table, ())) for table in COLUMNS}
    told = Told(notes=[*getattr(recorded, "notes", ())])
    steps = steps_of(columns["steps"], origin_ns, told)
    ended = recorded.state in ("finished", "failed")
    told.frames["phases"] = phases_of(columns["phases"], steps, told, is_whole=ended)
    unclear = "loss" in columns["gaps"].values("column")
    values_of(columns["values"], origin_ns, told, is_loss_unclear=unclear)
    for table in _SAMPLED:
        told.frames[table] = _sampled(table, columns[table], origin_ns, str(header.get("host", "")))
    windows = traced(columns["windows"], rank, getattr(recorded, "rank_folder", None), origin_ns)
    profiled = steps["is_profiled"].to_numpy(dtype=bool) if "is_profiled" in steps else np.zeros(len(steps), dtype=bool)
    told.frames["steps"] = steps.assign(is_profiled=profiled | is_within(steps["step"].to_list(), windows.windows))
    own = _host_ops(columns["host_ops"], origin_ns, str(header.get("process", "")))
    told.frames |= windows.frames
    if len(own):
        told.frames["host_ops"] = _both(windows.frames.get("host_ops"), own)
    told.frames["gaps"] = _gaps(columns["gaps"], origin_ns, told.gaps)
    said = [text.clean(str(note), _LONGEST_NOTE) for note in columns["notes"].values("note") if note is not None]
    return RankTables(
        rank=rank,
        frames=told.frames,
        recording=_recording(recorded, rank, columns["costs"], origin_ns),
        steps_done=int(steps["step"].iloc[-1]) if len(steps) else None,
        notes=(*told.notes, *windows.notes, *said),
        seen=_seen(columns["config"]),
        traced_frames=windows.frames,
    )


def _moments(recorded: _Recorded, wanted: Sequence[tuple[str, str]]) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    found = []
    for table, name in wanted:
        moments, known = Columns(table, recorded.header, recorded.rows.get(table, ())).integers(name)
        if known.any():
            found.append(moments[known])
    return found


def _sampled(table: str, columns: Columns, origin_ns: int, host: str) -> pd.DataFrame:
    time, known = columns.integers("time_ns")
    if "step" in columns.names:
        known = known & columns.integers("step")[1]
    frame = table_of(table, columns).assign(time_us=microseconds(time, origin_ns))
    return frame.assign(host=host)[known] if table == "host_samples" else frame[known]


def _host_ops(columns: Columns, origin_ns: int, process: str) -> pd.DataFrame:
    (start, has_start), (end, has_end) = columns.integers("start_ns"), columns.integers("end_ns")
    times = {"start_us": microseconds(start, origin_ns), "duration_us": (end - start) / 1000}
    frame = table_of("host_ops", columns).assign(process=process, **times)
    return frame[has_start & has_end & (end >= start) & (end - start >= 0)]


def _both(of_trace: pd.DataFrame | None, own: pd.DataFrame) -> pd.DataFrame:
    """Host events of the trace and of the recorder itself, in order of time."""
    if of_trace is None or of_trace.empty:
        return own
    named = [name for name in of_trace.columns if isinstance(of_trace[name].dtype, pd.CategoricalDtype)]
    plain = [frame.astype({name: object for name in named if name in frame}) for frame in (of_trace, own)]
    return pd.concat(plain, ignore_index=True).sort_values("start_us", kind="stable", ignore_index=True)


def _gaps(columns: Columns, origin_ns: int, further: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    first, known = columns.integers("first_ns")
    frame = table_of("gaps", columns).assign(first_us=np.where(known, microseconds(first, origin_ns), np.nan))
    frame = frame.drop_duplicates(["table", "column", "device", "reason"], keep="last")
    own = pd.DataFrame(list(further), columns=["table", "column", "reason"]).assign(count=1)
    if own.empty:
        return frame
    texts_only = dict.fromkeys(("table", "column", "reason"), object)
    both = pd.concat([frame.astype(texts_only), own], ignore_index=True) if len(frame) else own
    return both.assign(**{name: texts(both[name].where(both[name].notna(), None).to_list()) for name in texts_only})


def _seen(columns: Columns) -> dict[str, Any]:
    pairs = zip(columns.values("knob"), columns.values("value"), strict=True)
    return {knob: restored(value) for knob, value in pairs if isinstance(knob, str)}


def _recording(recorded: _Recorded, rank: int, costs: Columns, origin_ns: int) -> Recording:
    until = max((int(each.max()) for each in _moments(recorded, _ENDS)), default=None)
    per_step = share = None
    if len(costs):
        time, hook, steps, sampler = (float(costs.floats(name)[-1]) for name in COLUMNS["costs"])
        elapsed = time - float(recorded.header["monotonic_ns"])
        per_step = hook / steps / 1000 if steps >= 1 else None
        share = sampler / elapsed if elapsed >= 1 else None
    state = recorded.state if recorded.state in _STATES else "killed"
    return Recording(
        rank=rank,
        state=cast("Literal['finished', 'failed', 'running', 'killed']", state),
        reason=recorded.reason,
        until_us=(until - origin_ns) / 1000 if until is not None else None,
        hook_us_per_step=per_step if per_step is None or np.isfinite(per_step) else None,
        sampler_cpu_share=share if share is None or np.isfinite(share) else None,
    )
