"""An MLflow run: the files of a file store, a database of SQLite, or whatever store the package mlflow reaches."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pandas as pd

from perfnb.errors import LogFormatError
from perfnb.read.metric_cells import MOST_COLUMNS
from perfnb.read.metric_rows import Rows
from perfnb.read.training_log.log import Log, one_of
from perfnb.text import clean, count

META: Final = "meta.yaml"
RUNS: Final = "runs:/"
_SYSTEM: Final = "system/"  # mlflow/system_metrics: its steps count samples, not steps of the training
_LARGEST_META: Final = 1 << 16
_LARGEST_METRIC: Final = 1 << 30
_LONGEST_PARAMETER: Final = 8_000  # mlflow/utils/validation.py: MAX_PARAM_VAL_LENGTH is 6,000, and 8,000 in its database
_STATES: Final = {"1": "running", "2": "scheduled", "4": "failed", "5": "killed"}  # mlflow/protos/service.proto, RunStatus
_NEEDED: Final = "reading an MLflow run from a server needs the package mlflow-skinny: pip install mlflow-skinny"
_SHOWN: Final = 6

Point = tuple[float, float, int]
"""Moment in ms since 1970, value, step."""


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of a file store."""
    return (folder / META).is_file() and (folder / "metrics").is_dir()


def run_folders(folder: Path) -> list[Path]:
    """Runs of an experiment's folder, or of all experiments of a store."""
    below = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name != ".trash"]
    here = [path for path in below if is_run(path)]
    return here or [
        path
        for experiment in below
        if (experiment / META).is_file()
        for path in experiment.iterdir()
        if path.is_dir() and not path.is_symlink() and is_run(path)
    ]


def read(path: Path) -> Log:
    """The log of a run's folder, of a folder with one run, or of a database with one run.

    Raises
    ------
    LogFormatError
        If there is no run or there are several, or the run has no metrics.
    """
    if path.is_file():
        return _from_database(path, None)
    folder = path if is_run(path) else one_of(run_folders(path) or [path], "runs", path.name)
    if not is_run(folder):
        message = f"{path.name} holds no MLflow run: name a folder mlruns/<experiment>/<run> with {META} and metrics"
        raise LogFormatError(message)
    meta = _meta(folder)
    metrics = {name: _points(file, name) for name, file in _files(folder / "metrics")}
    parameters = {
        name: file.read_bytes()[:_LONGEST_PARAMETER].decode("utf-8", "replace") for name, file in _files(folder / "params")
    }
    return _log(folder.name, metrics, parameters, _STATES.get(meta.get("status", "")))


def read_uri(uri: str) -> Log:
    """The log of `runs:/<run id>` in the tracking store that MLFLOW_TRACKING_URI or mlflow names, or of `sqlite:///<file>`.

    Raises
    ------
    LogFormatError
        If the store or the run is not there, or the package mlflow is needed and missing.
    """
    if not uri.startswith(RUNS):
        return _from_database(_database(uri), None)
    run_id = uri.removeprefix(RUNS).strip("/")
    if not run_id or "/" in run_id or run_id.startswith("."):
        message = f"{clean(uri, 80)!r} names no run: write runs:/<run id>"
        raise LogFormatError(message)
    store = os.environ.get("MLFLOW_TRACKING_URI") or _configured()
    if store.startswith("sqlite:"):
        return _from_database(_database(store), run_id)
    if store.startswith("file:") or "://" not in store:
        return read(_in_files(Path(unquote(urlsplit(store).path)) if store.startswith("file:") else Path(store), run_id))
    try:
        from mlflow import MlflowClient  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional
    except ImportError as error:
        raise LogFormatError(_NEEDED) from error
    return through_client(MlflowClient(store), run_id)


def through_client(client: Any, run_id: str) -> Log:
    """The log of a run that an MlflowClient reaches.

    Raises
    ------
    LogFormatError
        If there is no such run.
    """
    from mlflow.exceptions import MlflowException  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - the client came from there

    try:
        run = client.get_run(run_id)
        metrics = {
            str(name): [(point.timestamp, point.value, point.step) for point in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        }
    except MlflowException as error:
        message = f"MLflow has no run {clean(run_id, 80)!r} that can be read: {clean(error, 200)}"
        raise LogFormatError(message) from error
    state = str(run.info.status).lower()
    return _log(run_id, metrics, run.data.params, None if state == "finished" else state)


def _configured() -> str:
    try:
        import mlflow  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional
    except ImportError as error:
        message = f"runs:/ needs to know the store: set MLFLOW_TRACKING_URI to it, or name the run's folder; {_NEEDED}"
        raise LogFormatError(message) from error
    return str(mlflow.get_tracking_uri())


def _in_files(store: Path, run_id: str) -> Path:
    found = [path for path in run_folders(store) if path.name == run_id] if store.is_dir() else []
    if not found:
        message = f"the MLflow store {store.name} has no run {clean(run_id, 80)!r}"
        raise LogFormatError(message)
    return found[0]


def _database(uri: str) -> Path:
    """File of an address as SQLAlchemy writes it: three slashes before a relative path, four before an absolute one."""
    path = Path(uri.partition("///")[2].partition("?")[0])
    if not path.is_file():
        message = f"the MLflow database {path.name or clean(uri, 80)} is not there"
        raise LogFormatError(message)
    return path


def _from_database(file: Path, run_id: str | None) -> Log:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            runs = connection.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
            states = {str(name): str(state).lower() for name, state in runs}
            if run_id is None and len(states) != 1:
                known = ", ".join(clean(name, 40) for name in list(states)[:_SHOWN]) or "none"
                message = (
                    f"{file.name} holds {count(len(states), 'run')} ({known}{', ...' if len(states) > _SHOWN else ''}): set "
                    f"MLFLOW_TRACKING_URI to it and name one as runs:/<run id>"
                )
                raise LogFormatError(message)
            chosen = run_id if run_id is not None else next(iter(states))
            if chosen not in states:
                message = f"the MLflow database {file.name} has no run {clean(chosen, 80)!r}"
                raise LogFormatError(message)
            metrics: dict[str, list[Point]] = {}
            for name, value, moment, step, is_nan in connection.execute(
                "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step", (chosen,)
            ):
                metrics.setdefault(str(name), []).append((float(moment), float("nan") if is_nan else float(value), int(step)))
            parameters = dict(connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (chosen,)).fetchall())
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:  # a cell of SQLite may hold anything
        message = f"{file.name} is a database, but none of MLflow's: {clean(error, 200)}"
        raise LogFormatError(message) from error
    return _log(chosen, metrics, parameters, None if states[chosen] == "finished" else states[chosen])


def _log(name: str, metrics: Mapping[str, Iterable[Point]], parameters: Mapping[str, Any], state: str | None) -> Log:
    notes = [f"the MLflow run is {state}, so its last steps may be missing"] if state is not None else []
    series = {key: list(points) for key, points in metrics.items()}
    if not any(series.values()):
        message = f"the MLflow run {clean(name, 80)} has no metrics: log some with mlflow.log_metric(name, value, step=step)"
        raise LogFormatError(message)
    training = {key: points for key, points in series.items() if not key.startswith(_SYSTEM)}
    system = {key: points for key, points in series.items() if key.startswith(_SYSTEM)}
    rows = []
    if any(training.values()):
        rows.append(Rows(_wide(training, notes), "training_metrics", name))
    if any(system.values()):
        table = _wide(system, [])
        rows.append(
            Rows(table.drop(columns="step"), "training_metrics" if not rows else "system_metrics", None if rows else name)
        )
    return Log(rows, dict(parameters), tuple(notes))


def _wide(series: Mapping[str, list[Point]], notes: list[str]) -> pd.DataFrame:
    """One row per step, with the moment of its first value; of a step that is there again, the later value."""
    if len(series) > MOST_COLUMNS:
        message = f"the MLflow run has more than {MOST_COLUMNS:,} metrics: values must not be part of names"
        raise LogFormatError(message)
    values: dict[str, dict[int, float]] = {}
    moments: dict[int, float] = {}
    for name, points in series.items():
        ordered = sorted(points, key=lambda point: point[0])  # the sort is stable: what was written first stays first
        if len(ordered) > 1 and all(step == 0 for _, _, step in ordered):
            ordered = [(moment, value, number) for number, (moment, value, _) in enumerate(ordered)]
            notes.append(f"{clean(name, 80)!r} was logged without steps: its values are numbered in their order")
        known = values.setdefault(name, {})
        last: int | None = None
        for moment, value, step in ordered:
            if last is not None and step <= last and (again := [other for other in known if other >= step]):
                notes.append(
                    f"resumed: {clean(name, 80)!r} went back to step {step}: "
                    f"{count(len(again), 'value')} up to step {max(again)} from before are left out"
                )
                for other in again:
                    del known[other]
            known[step], last = value, step
            moments[step] = min(moment, moments.get(step, moment))
    index = sorted({step for known in values.values() for step in known})
    table = pd.DataFrame({"step": index, "timestamp": [moments[step] for step in index]})
    columns = {
        name if name not in table else f"{name} (metric)": pd.Series([known.get(step) for step in index], dtype=object)
        for name, known in values.items()
    }
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder by their name in the store; links, which could lead anywhere, are not followed."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from ((f"{path.name}/{name}", file) for name, file in _files(path))
        elif path.is_file():
            yield path.name, path


def _meta(folder: Path) -> dict[str, str]:
    """Entries of a run's meta.yaml, one per line as MLflow writes it."""
    with (folder / META).open("rb") as opened:
        text = opened.read(_LARGEST_META).decode("utf-8", "replace")
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _points(file: Path, name: str) -> list[Point]:
    """Points of a metric: lines of moment, value and step; a last line that is cut off is left out."""
    if file.stat().st_size > _LARGEST_METRIC:
        message = f"metric {clean(name, 80)!r} has over {_LARGEST_METRIC:,} bytes"
        raise LogFormatError(message)
    found: list[Point] = []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        try:
            found.append((float(parts[0]), float(parts[1]), int(parts[2]) if len(parts) > 2 else 0))  # noqa: PLR2004 - stores of before MLflow 1.0 have no step
        except (ValueError, IndexError) as error:
            if number == len(lines):
                break
            message = f"metric {clean(name, 80)!r}, line {number} is no moment, value and step: {clean(line, 80)!r}"
            raise LogFormatError(message) from error
    return found
