"""Whatever a script has of its training as one Run: rows, files, folders, or a Run itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from perfnb.config.as_config import as_config
from perfnb.errors import LogFormatError
from perfnb.read.any_run import holds_trace, is_run_folder, read_log_with, read_run_or_log
from perfnb.read.memory_snapshot import read_memory_snapshot
from perfnb.read.metric_rows import rows_of
from perfnb.read.metrics import read_metrics
from perfnb.run import Run
from perfnb.safe_text import clean

_PICKLES: Final = (".pickle", ".pkl", ".pickle.gz", ".pkl.gz")
_LONGEST: Final = 80
_TAKEN: Final = MappingProxyType(
    {
        "training_metrics": "pass rows, a Run, or the path of either",
        "memory_snapshots": "pass rows, the path of a file of them or of a snapshot (.pickle), or None for none",
        "system_metrics": "pass rows, the path of a file of them, or None for none",
    }
)
"""Argument to what it may be."""


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
    units = checked_units(units)
    memory, host = _given(memory_snapshots, "memory_snapshots"), _given(system_metrics, "system_metrics")
    _refuse_live_snapshot(memory)
    snapshot = memory if isinstance(memory, Path) and memory.name.lower().endswith(_PICKLES) else None
    beside = {"memory_snapshots": memory if snapshot is None else None, "system_metrics": host}
    known = None if config is None else dict(as_config(config))
    training = _given(training_metrics, "training_metrics") if _is_path(training_metrics) else training_metrics
    if isinstance(training, (Run, Path)):
        run = _read(training, {label: given for label, given in beside.items() if given is not None}, known, units)
        run = run if known is None else replace(run, config=MappingProxyType(known))
    else:
        run = read_metrics(training, beside["memory_snapshots"], host, known, units=units)
    return run if snapshot is None else _with_allocations(run, read_memory_snapshot(snapshot))


def checked_units(units: Any) -> Mapping[str, str] | None:
    """Units as a caller without types gave them.

    Raises
    ------
    LogFormatError
        If they are no mapping of text to text.
    """
    if units is None:
        return None
    if isinstance(units, Mapping) and all(isinstance(text, str) for pair in units.items() for text in pair):
        return units
    message = f"units is {clean(repr(units), _LONGEST)}: pass a mapping of columns to their units, as {{'*_time': 's'}}"
    raise LogFormatError(message)


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, os.PathLike))


def _given(given: Any, label: str) -> Any:
    """A path that is there, for the text of one; None where there is none of it; anything else as it is."""
    if _is_path(given):
        return _path(os.fsdecode(given), label)
    return None if _is_nothing(given) else given


def _is_nothing(given: Any) -> bool:
    """Whether there is none of it: None, or an empty list or dict, as scripts on machines without a GPU have them."""
    try:
        return given is None or len(given) == 0
    except TypeError:  # it has no length, as an array without axes
        return False


def _path(text: str, label: str) -> Path:
    """The path that a text names; a script may have passed the rows themselves as text."""
    why, is_rows = "does not exist", "\n" in text or text.lstrip().startswith(("{", "["))
    try:
        path = Path(text).expanduser()
        if text.strip() and path.exists() and (label == "training_metrics" or not path.is_dir()):
            return path
        why = "is a folder" if path.is_dir() else why
    except RuntimeError:
        why = "starts at the home of a user who is not there"
    except OSError as error:
        why, is_rows = f"cannot be looked at: {error.strerror}", is_rows or error.errno == errno.ENAMETOOLONG
    shown = clean(text, _LONGEST)
    if not text.strip():
        message = f"{label} is {shown!r}, which names nothing: {_TAKEN[label]}"
    elif is_rows:
        message = (
            f"{label} is a text of {len(text):,} characters ({shown!r}) that names no file: write it into one, and pass its path"
        )
    else:
        message = f"{label} names {shown}, which {why}: {_TAKEN[label]}"
    raise LogFormatError(message)


def _read(given: Run | Path, beside: Mapping[str, Any], config: Mapping[str, Any] | None, units: Mapping[str, str] | None) -> Run:
    """A run folder or trace where it is one, else the log of a trainer, or rows; with rows of memory and host beside a log."""
    if not beside:
        return given if isinstance(given, Run) else read_run_or_log(given, units=units)
    names = " and ".join(beside)
    if isinstance(given, Run) and _is_of_rows(given):
        message = (
            f"{names} cannot be added to a Run that was read already: give them to perfnb.read_metrics together with the rows of "
            "training, or pass those rows, or the path of the log, as training_metrics"
        )
        raise LogFormatError(message)
    if isinstance(given, Run) or is_run_folder(given) or holds_trace(given):
        message = (
            f"{names} may be rows only beside rows of training metrics or a log: a trace or a recording holds its own samples; "
            "leave them out, or pass the path of a snapshot (.pickle) as memory_snapshots"
        )
        raise LogFormatError(message)
    return read_log_with(given, [rows_of(rows, label) for label, rows in beside.items()], config, units=units)


_OF_ROWS: Final = frozenset(
    {"steps", "phases", "phases.other", "loader", "training", "gpu_samples", "host_samples", "allocator", "metrics"}
)
"""What a log of rows can hold: a run with more is a trace or a recording."""


def _is_of_rows(run: Run) -> bool:
    return run.signals <= _OF_ROWS and not run.recordings


def _refuse_live_snapshot(given: Any) -> None:
    """Refuse what torch tells of its allocator inside the process: it has no form that stays, and a file of it has one."""
    segments = given.get("segments") if isinstance(given, Mapping) else given
    if not isinstance(segments, list) or not all(isinstance(each, Mapping) for each in segments[:1]):
        return
    if segments is given and not (segments and {"blocks", "total_size"} <= segments[0].keys()):
        return
    call = "torch.cuda.memory_snapshot()" if segments is given else "torch.cuda.memory._snapshot()"
    message = (
        f"memory_snapshots is what {call} gives, not rows: write it with "
        "torch.cuda.memory._dump_snapshot('snapshot.pickle') and pass that path"
    )
    raise LogFormatError(message)


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
