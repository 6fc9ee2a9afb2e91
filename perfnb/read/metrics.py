"""Other people's metrics as a Run: rows of training, memory and host values, with the names that such logs use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from perfnb import tables
from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Floats
from perfnb.read.metric_parts import Part, part_of
from perfnb.read.metric_rows import Rows, Source, rows_of
from perfnb.read.metric_samples import samples_of
from perfnb.read.metric_steps import Repeats, with_steps
from perfnb.read.metric_tables import allocator_table, machine, metrics_table, rest, shares, together, training_table
from perfnb.read.metric_times import Times, times_of
from perfnb.read.metric_units import Units
from perfnb.run import Run
from perfnb.text import clean, count

_WORLD_SIZE: Final = ("world_size", "WORLD_SIZE", "num_processes", "nproc")
_SHOWN: Final = 20
_ABSENT: Final = MappingProxyType(
    {
        "gpu_samples": "the log has no column of a GPU's utilization, memory, power or temperature",
        "host_samples": "the log has no column of the host's CPU, memory, disk or network",
        "allocator": "the log has no column of allocated or reserved memory",
        "training": "the log has no loss, learning rate, gradient norm or batch size",
        "loader": "the log has no time of loading data: log data_loading_time",
        "collectives": "a log of metrics has no calls of collectives: record a trace",
        "device_ops": "a log of metrics has no kernels: record a trace",
        "host_ops": "a log of metrics has no host events: record a trace",
        "allocations": "a log of metrics has no single allocations: record a memory snapshot",
        "metrics": "the log has no further columns",
    }
)


def read_metrics(
    training_metrics: Source | None,
    memory_snapshots: Source | None = None,
    system_metrics: Source | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    rank: int | None = None,
) -> Run:
    """A Run from metrics that a training logged by itself.

    Each input is a list of dicts, a dict of lists, a DataFrame, or a path to CSV, JSONL, JSON or Parquet. Which names are
    known, where each goes and how units are told stands in docs/logs.md; other columns of numbers are kept in `run.metrics`.

    Parameters
    ----------
    training_metrics
        One row per step (and rank): step_time, data_loading_time, forward_time, loss, learning_rate, gpu_utilization, ...
    memory_snapshots
        Memory of GPUs over steps or time: allocated, reserved, used, total, ...
    system_metrics
        Host and GPUs over time: cpu_percent, memory_percent, disk_io_read, network_io_sent, gpu_utilization, ...
    config
        The training's config; world_size is taken from it.
    units
        Unit of a column that does not say its own, by the column's name, the quantity's, or a pattern: `{"*_time": "s"}`.
    rank
        Rank of a log without a column of ranks; of one with such a column, the rank to read.

    Returns
    -------
    Run
        Tables steps, phases, training, gpu_samples, host_samples, allocator and metrics, as far as the log has them;
        `missing` says why others are empty, `notes` what was assumed or left out.

    Raises
    ------
    LogFormatError
        If a unit is neither stated nor given, values contradict it, rows of several ranks cannot be told apart, or a file
        cannot be read; the message names the columns and what to pass.

    Examples
    --------
    >>> run = read_metrics({"step": [0, 1], "step_time_ms": [20, 25], "loss": [2.3, 2.1]})
    >>> run.steps["duration_us"].to_list()
    [20000.0, 25000.0]
    """
    inputs = (
        ("training_metrics", training_metrics),
        ("memory_snapshots", memory_snapshots),
        ("system_metrics", system_metrics),
    )
    if training_metrics is None:  # a caller without types
        message = "training_metrics is None: pass a list of dicts, a dict of lists, a DataFrame or a path"
        raise LogFormatError(message)
    read = [rows_of(source, label) for label, source in inputs if source is not None]
    return run_of_rows(read, config, units=units, rank=rank)


def run_of_rows(
    read: list[Rows],
    config: Mapping[str, Any] | None = None,
    *,
    units: Mapping[str, str] | None = None,
    rank: int | None = None,
    later_wins: bool = False,
    missing: Mapping[str, str] | None = None,
) -> Run:
    """A Run from the rows of a training log, and those of further inputs after it.

    Parameters
    ----------
    read
        Rows of the training first.
    config, units, rank
        As in `read_metrics`.
    later_wins
        Whether a step that is there twice may be a training that started anew, whose later row counts.
    missing
        Reasons that the caller knows better, by signal.

    Returns
    -------
    Run
        The run.

    Raises
    ------
    LogFormatError
        As `read_metrics`.
    """
    known_units = Units.of(units)
    parts = [part_of(rows, known_units) for rows in read]
    conventions = known_units.finish(str(name) for rows in read for name in rows.frame.columns)
    names_ranks = parts[0].rank is not None
    repeats: Repeats = "question" if not later_wins else "latest" if read[0].is_of_one_rank else "restart"
    training = with_steps(parts[0], rank, repeats=repeats)
    others = [_with_rank(part, rank) for part in parts[1:]]
    origins, clock_notes = _origins([training, *others])
    times = times_of(training, origins[0])
    row_us = [times.row_us, *(_moments(part, origin, training, times) for part, origin in zip(others, origins[1:], strict=True))]
    samples = [samples_of(part, at) for part, at in zip([training, *others], row_us, strict=True)]
    values = [*shares(samples, [training, *others], row_us), *rest([training, *others], row_us)]
    if times.communication_us is not None:
        values.append((training, times.row_us, "communication_us", times.communication_us))
    allocator, unplaced = allocator_table(samples, [training, *others], row_us)
    made = {
        "steps": times.steps,
        "phases": times.phases,
        "training": training_table(training, times.row_us),
        "gpu_samples": together([one.gpu for one in samples], ["rank", "time_us", "row", "gpu"]),
        "host_samples": together([one.host for one in samples], ["rank", "time_us", "row"]),
        "allocator": allocator,
        "metrics": metrics_table([*values, *unplaced]),
    }
    conformed = {name: tables.conform(name, frame) if len(frame) else tables.empty(name) for name, frame in made.items()}
    filled: set[str] = {name for name, frame in conformed.items() if len(frame)}
    if filled & {"phases"}:
        filled |= {"loader"} if conformed["phases"]["phase"].eq("data").any() else set()
        filled |= {"phases.other"} - times.missing.keys()
    reasons = {**_ABSENT, **times.missing, **(missing or {})}
    ranks = len(np.unique(training.rank if training.rank is not None else []))
    return Run(
        **cast("dict[str, Any]", conformed),
        config=MappingProxyType(dict(config or {})),
        machine=machine(conformed["gpu_samples"]),
        signals=frozenset(filled),
        missing=MappingProxyType({name: reason for name, reason in reasons.items() if name not in filled}),
        notes=tuple(
            dict.fromkeys(
                [
                    *(note for part in [training, *others] for note in part.notes),
                    *conventions,
                    *clock_notes,
                    *times.notes,
                    *(note for one in samples for note in one.notes),
                    *_leftovers(parts),
                ]
            )
        ),
        world_size=_world_size(config, ranks, names_ranks=names_ranks),
        source=tuple(rows.file for rows in read if rows.file),
    )


def _with_rank(part: Part, rank: int | None) -> Part:
    made = part.taken(np.arange(part.size))
    if made.rank is None:
        made.rank = np.full(made.size, float(rank or 0))
        return made
    return made.taken(np.flatnonzero(np.isfinite(made.rank) & ((made.rank == rank) if rank is not None else True)))


def _origins(parts: list[Part]) -> tuple[list[float], list[str]]:
    """Moment of each part's clock at which the time line begins; one for all that count from 1970, one for the others."""
    starts: list[float] = []
    for part in parts:
        length = part.column("step_time")
        begins = (
            np.array([np.nan]) if part.time_us is None else part.time_us - (np.nan_to_num(length) if length is not None else 0.0)
        )
        known = begins[np.isfinite(begins)]
        starts.append(float(known.min()) if known.size else np.nan)
    absolute = [start for part, start in zip(parts, starts, strict=True) if part.since_1970 and np.isfinite(start)]
    relative = [start for part, start in zip(parts, starts, strict=True) if not part.since_1970 and np.isfinite(start)]
    first, zero = min(absolute, default=0.0), min([0.0, *relative])
    notes = []
    if absolute and relative:
        notes.append("some inputs count from 1970 and some from a start of their own, which is taken to be that of the former")
    elif len(relative) > 1:
        notes.append("moments do not count from 1970: those of all inputs are taken to count from one start")
    return [first if part.since_1970 else zero for part in parts], notes


def _moments(part: Part, origin: float, training: Part, times: Times) -> Floats:
    """Moment of each row: its own, else that of its step in the training log."""
    if part.time_us is not None:
        return part.time_us - origin
    if part.step is None or not part.size:
        part.notes.append(f"{part.origin} has neither moments nor steps: when its rows were is not known")
        return np.full(part.size, np.nan)
    ends = pd.DataFrame({"rank": training.rank, "step": training.step, "end": times.row_us}).drop_duplicates(["rank", "step"])
    found = pd.DataFrame({"rank": part.rank, "step": part.step}).merge(ends, on=["rank", "step"], how="left")
    return np.asarray(found["end"], dtype=np.float64)


def _world_size(config: Mapping[str, Any] | None, ranks: int, *, names_ranks: bool) -> int | None:
    for name in _WORLD_SIZE:
        stated = (config or {}).get(name)
        if isinstance(stated, (int, np.integer)) and not isinstance(stated, bool) and stated > 0:
            if stated < ranks:
                message = f"config says {name} {stated}, and the log has {ranks} ranks: correct the config"
                raise LogFormatError(message)
            return int(stated)
    return ranks if names_ranks else None


def _leftovers(parts: list[Part]) -> list[str]:
    notes = []
    for part in parts:
        rest, texts = [clean(name, 80) for name, _ in part.rest], [clean(name, 80) for name in part.texts]
        if rest:
            notes.append(f"{part.origin}: {count(len(rest), 'column')} of no known meaning in metrics: {_listed(rest)}")
        if texts:
            notes.append(f"{part.origin}: {count(len(texts), 'column')} without numbers left out: {_listed(texts)}")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
