"""Which format a training log has, by its content, and the Run of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Final

from perfnb.errors import LogFormatError
from perfnb.read.metric_rows import rows_of
from perfnb.read.metrics import run_of_rows
from perfnb.read.training_log import huggingface, lightning, mlflow, tensorboard
from perfnb.read.training_log.log import Log
from perfnb.run import Run
from perfnb.text import clean

_START: Final = 4096
_SHOWN: Final = 6


def _table(path: Path) -> Log:
    return Log([rows_of(path, "training_metrics")])


FORMATS: Final[Mapping[str, Callable[[Path], Log]]] = MappingProxyType(
    {
        "huggingface": huggingface.read,
        "lightning": lightning.read,
        "tensorboard": tensorboard.read,
        "mlflow": mlflow.read,
        "csv": _table,
        "jsonl": _table,
        "json": _table,
        "parquet": _table,
    }
)
"""Name of each format to its reader."""

# What other files are, by their first bytes.
_OTHERS: Final = (
    (b"\x80", "a pickle, which could run code when read"),
    (b"PK\x03\x04", "a zip archive or a torch checkpoint, which could run code when read"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a picture"),
    (b"%PDF", "a PDF"),
    (b":W&B", "wandb's own transaction log: export it as JSONL, from run.history() or run.scan_history()"),
    (b"<", "HTML or XML"),
    (b"version https://git-lfs", "a pointer of Git LFS: run git lfs pull"),
)


def read_training_log(
    path: str | PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the word that readers of files use
    units: Mapping[str, str] | None = None,
) -> Run:
    """A Run from the log that a trainer or tracker wrote.

    Reads Hugging Face's trainer_state.json (or a folder with checkpoints), Lightning's metrics.csv (or lightning_logs),
    TensorBoard's event files (or a folder of them), an MLflow run (its folder, its SQLite database, or `runs:/<run id>`), and
    CSV, JSONL, JSON and Parquet by the rules of `read_metrics`. The content decides, not the name. No file is unpickled.

    Parameters
    ----------
    path
        File, folder, `runs:/<run id>` or `sqlite:///<file>`.
    format
        One of huggingface, lightning, tensorboard, mlflow, csv, jsonl, json, parquet; told from the content if None.
    units
        Unit of columns that do not say their own, as in `read_metrics`.

    Returns
    -------
    Run
        Tables training and metrics, and steps, phases and samples where the log has them; `missing` says why they are empty.

    Raises
    ------
    LogFormatError
        If the format is not known, a package for it is missing, or the log cannot be read; the message says what to do.
    """
    if format is not None and format not in FORMATS:
        message = f"format={clean(format, 40)!r} is not known: use {', '.join(FORMATS)}"
        raise LogFormatError(message)
    text = fspath(path)
    if text.startswith((mlflow.RUNS, "sqlite:")):
        log = mlflow.read_uri(text)
    else:
        file = Path(text)
        if not file.exists():
            message = f"{file.name or text} does not exist"
            raise LogFormatError(message)
        log = FORMATS[format or format_of(file)](file)
    run = run_of_rows(log.rows, log.config, units=units, later_wins=True, missing=log.missing)
    return replace(run, notes=(*log.notes, *run.notes))


def format_of(path: Path) -> str:
    """Name of a log's format, told from its content.

    Raises
    ------
    LogFormatError
        If it is none of those known: the message says what it is.
    """
    return _of_folder(path) if path.is_dir() else _of_file(path)


def _of_folder(folder: Path) -> str:
    version = lightning.newest_version(folder)
    if huggingface.state_files(folder):
        return "huggingface"
    if mlflow.is_run(folder) or mlflow.run_folders(folder):
        return "mlflow"
    if (version / lightning.NAME).is_file():
        return "lightning"
    if any(path.is_file() for path in folder.rglob("*tfevents*")):
        return "tensorboard"
    holds = ", ".join(clean(path.name, 40) for path in sorted(folder.iterdir())[:_SHOWN]) or "nothing"
    message = f"{folder.name} is a folder without a log that is known (it holds {holds}): {_known()}"
    raise LogFormatError(message)


def _of_file(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            start = opened.read(_START)
    except OSError as error:
        message = f"{file.name} cannot be read: {error.strerror or type(error).__name__}"
        raise LogFormatError(message) from error
    if not start.strip():
        message = f"{file.name} is empty: the log has no rows yet"
        raise LogFormatError(message)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"SQLite format 3\0"):
        return "mlflow"
    if tensorboard.MARK in start[:64]:
        return "tensorboard"
    if what := next((what for mark, what in _OTHERS if start.startswith(mark)), None):
        message = f"{file.name} is {what}; {_known()}"
        raise LogFormatError(message)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in start and not is_utf16:
        message = f"{file.name} is binary, of no kind that is known; {_known()}"
        raise LogFormatError(message)
    if text.startswith(b"["):
        return "json"
    if text.startswith(b"{"):
        return "huggingface" if _is_state(file, text) else "json"
    first = text.partition(b"\n")[0].decode("utf-8", "replace").lower()
    if is_utf16 or any(sign in first for sign in (",", "\t", ";")) or len(first.split()) == 1:
        names = [name.strip().strip('"') for name in first.split(",")]
        return "lightning" if file.name == lightning.NAME and {"step", "epoch"} <= set(names) else "csv"
    message = f"{file.name} is text in lines of no known form ({clean(first, 60)!r}); {_known()}"
    raise LogFormatError(message)


def _is_state(file: Path, start: bytes) -> bool:
    """Whether a JSON object is a Trainer's state: log_history stands behind entries that any length may have."""
    if b'"log_history"' in start:
        return True
    with file.open("rb") as opened:
        kept = b""
        while block := opened.read(1 << 20):
            if b'"log_history"' in kept + block:
                return b'"global_step"' in start or b'"best_metric"' in start
            kept = block[-16:]
    return False


def _known() -> str:
    return (
        "known are trainer_state.json of Hugging Face, metrics.csv of Lightning, event files of TensorBoard, a run of MLflow, "
        "CSV, JSONL, JSON and Parquet"
    )
