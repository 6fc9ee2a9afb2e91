"""The log of Lightning's CSVLogger: metrics.csv with its wide rows and blanks, and hparams.yaml beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from perfnb.errors import LogFormatError
from perfnb.read.metric_rows import rows_of
from perfnb.read.training_log.log import Log, plain_config

NAME: Final = "metrics.csv"
_HYPERPARAMETERS: Final = "hparams.yaml"
_VERSION: Final = re.compile(r"version_(\d{1,9})")
_LARGEST_YAML: Final = 1 << 20


def newest_version(folder: Path) -> Path:
    """The folder itself, or of a folder of versions the newest one."""
    versions = sorted((int(match[1]), path) for path in folder.iterdir() if (match := _VERSION.fullmatch(path.name)))
    return versions[-1][1] if versions and not (folder / NAME).is_file() else folder


def read(path: Path) -> Log:
    """The log of a metrics.csv, of a folder version_N, or of the newest version of a folder of them.

    Raises
    ------
    LogFormatError
        If there is none.
    """
    notes: list[str] = []
    if path.is_dir():
        chosen = newest_version(path)
        if chosen != path:
            notes.append(f"read {chosen.name}, the newest version")
        path = chosen / NAME
    if not path.is_file():
        message = f"{path.parent.name} holds no {NAME}: name a folder version_N of Lightning's CSVLogger"
        raise LogFormatError(message)
    rows = replace(rows_of(path, "training_metrics"), is_of_one_rank=True)
    config, said = hyperparameters(path.parent)
    missing = {
        "phases": "a Lightning log has no times of phases: record with perfnb's callback",
    }
    return Log([rows], config, (*notes, *said), missing)


def hyperparameters(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What hparams.yaml says, read by a loader that builds plain values only, and notes."""
    file = folder / _HYPERPARAMETERS
    if not file.is_file():
        return {}, ()
    try:
        import yaml  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - optional
    except ImportError:
        return {}, (f"{_HYPERPARAMETERS} was not read: pip install pyyaml",)
    if file.stat().st_size > _LARGEST_YAML:
        return {}, (f"{_HYPERPARAMETERS} has over {_LARGEST_YAML:,} bytes, and was not read",)
    try:
        loaded = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return {}, (f"{_HYPERPARAMETERS} holds more than plain values ({type(error).__name__}), and was not read",)
    return plain_config(loaded), ()
