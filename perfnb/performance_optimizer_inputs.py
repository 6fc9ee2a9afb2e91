"""Whatever a script has of its training as one Run: rows, files, folders, or a Run itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from perfnb.config.as_config import as_config
from perfnb.errors import LogFormatError
from perfnb.read.any_run import read_run_or_log
from perfnb.read.memory_snapshot import read_memory_snapshot
from perfnb.read.metrics import read_metrics
from perfnb.run import Run

_PICKLES: Final = (".pickle", ".pkl", ".pickle.gz", ".pkl.gz")


def run_of(
    training_metrics: Any,
    memory_snapshots: Any = None,
    system_metrics: Any = None,
    config: Any = None,
    *,
    units: Mapping[str, str] | None = None,
) -> Run:
    """A Run of whatever a script has of its training.

    Parameters
    ----------
    training_metrics
        A `Run`; rows (list of dicts, dict of lists, DataFrame); or a path: of a run folder, a trace, a trainer's log, or rows as
        CSV, JSONL, JSON or Parquet.
    memory_snapshots
        Rows of memory in the same forms, or the path of a snapshot of torch's allocator (.pickle); None or empty for none.
    system_metrics
        Rows of host and GPUs; None or empty for none.
    config
        Any home of a config; the run's own by default.
    units
        As in `perfnb.read_metrics`.

    Returns
    -------
    Run
        As `read_metrics`, `read_run`, `read_trace` or `read_training_log` gives it.

    Raises
    ------
    PerfnbError
        If something of it cannot be read; the message says what is there and what to pass.
    """
    snapshot = _snapshot_path(memory_snapshots)
    rows_of_memory = None if snapshot or _is_nothing(memory_snapshots) else memory_snapshots
    rows_of_host = None if _is_nothing(system_metrics) else system_metrics
    known = None if config is None else dict(as_config(config))
    if isinstance(training_metrics, Run) or _is_path(training_metrics):
        run = training_metrics if isinstance(training_metrics, Run) else _read(Path(training_metrics).expanduser(), units)
        if rows_of_memory is not None or rows_of_host is not None:
            run = _rows_too(run, training_metrics, rows_of_memory, rows_of_host, known, units)
        run = run if known is None else replace(run, config=MappingProxyType(known))
    else:
        run = read_metrics(training_metrics, rows_of_memory, rows_of_host, known, units=units)
    return run if snapshot is None else _with_allocations(run, read_memory_snapshot(snapshot))


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _is_nothing(given: Any) -> bool:
    """Whether there is none of it: None, or an empty list or dict, as scripts on machines without a GPU have them."""
    return given is None or (hasattr(given, "__len__") and not isinstance(given, str) and len(given) == 0)


def _snapshot_path(given: Any) -> Path | None:
    if not _is_path(given):
        return None
    path = Path(given).expanduser()
    return path if path.name.lower().endswith(_PICKLES) else None


def _read(path: Path, units: Mapping[str, str] | None) -> Run:
    """A run folder or trace where it is one; else the log of a trainer, or rows."""
    if not path.exists():
        message = f"training_metrics names {path.name or path}, which does not exist: pass rows, a Run, or the path of either"
        raise LogFormatError(message)
    return read_run_or_log(path, units=units)


def _rows_too(
    run: Run, given: Any, memory: Any, host: Any, config: Mapping[str, Any] | None, units: Mapping[str, str] | None
) -> Run:
    """A run of a file of rows with the rows of memory and host beside it; a trace or recording has clocks of its own."""
    if isinstance(given, Run) or not (run.signals <= _OF_ROWS):
        message = (
            "memory_snapshots and system_metrics go with rows of training metrics: a trace or a recording holds its own samples; "
            "leave them out, or pass the path of a snapshot (.pickle) as memory_snapshots"
        )
        raise LogFormatError(message)
    return read_metrics(given, memory, host, config or run.config, units=units)


_OF_ROWS: Final = frozenset(
    {"steps", "phases", "phases.other", "loader", "training", "gpu_samples", "host_samples", "allocator", "metrics"}
)
"""What a log of rows can hold: a run with more is a trace or a recording."""


def _with_allocations(run: Run, snapshot: Run) -> Run:
    missing = {name: reason for name, reason in run.missing.items() if name != "allocations"}
    missing |= {name: reason for name, reason in snapshot.missing.items() if name == "memory_start_state"}
    return replace(
        run,
        allocations=snapshot.allocations,
        config=MappingProxyType({**snapshot.config, **run.config}),
        signals=run.signals | snapshot.signals,
        missing=MappingProxyType(missing),
        notes=(*run.notes, *snapshot.notes),
        source=(*run.source, *snapshot.source),
    )
