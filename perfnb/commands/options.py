"""Options that several commands have, and the config that they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perfnb.config.json_file import CONFIG_NAME, config_beside, read_config


def add_path(parser: argparse.ArgumentParser) -> None:
    """PATH: one run folder, trace file, or folder of traces."""
    parser.add_argument("path", type=Path, metavar="PATH", help="run folder, trace file, or folder of traces")


def add_paths(parser: argparse.ArgumentParser) -> None:
    """PATH...: a run folder, or traces of one job."""
    parser.add_argument("path", type=Path, nargs="+", metavar="PATH", help="run folder, or traces of one job, all ranks")


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config FILE."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the training's config (default: config.json beside the trace, where there is one)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def config_of(named: Path | None, path: Path, recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config that `--config` names; else that beside the run; else the one that the run recorded."""
    return config_beside(path, recorded) if named is None else read_config(named)


def config_home(named: Path | None, path: Path, recorded: Mapping[str, Any]) -> Path | Mapping[str, Any]:
    """The file of the config, named or beside the run, so that a diff is that of the file; else what the run recorded."""
    beside = (path if path.is_dir() else path.parent) / CONFIG_NAME
    return named or (beside if beside.is_file() else recorded)


def named(paths: Sequence[Path]) -> str:
    """Names of files, for a message."""
    return ", ".join(path.name for path in paths)
