"""A config that is a file, only to be read: JSON, YAML or TOML, or the one that lies beside a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfnb.config.as_config import as_config
from perfnb.config.file_home import FORMATS, FileHome
from perfnb.errors import ConfigError

CONFIG_NAME: Final = "config.json"
"""File beside a trace that is read as the training's config where no other is named."""


def read_config(file: Path) -> dict[str, Any]:
    """Knobs and their values, by canonical name where the file has those of a library.

    Parameters
    ----------
    file
        A JSON object, or a .yaml, .yml or .toml file, nested or not.

    Returns
    -------
    dict
        Knob to value, nested as in the file.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not of its format, or holds something else than names and values.

    Examples
    --------
    >>> read_config(Path("data/samples/slow_loader/config.json"))["num_workers"]
    0
    """
    if file.suffix.lower() in FORMATS and file.suffix.lower() != ".json":
        return dict(FileHome(file))
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{file} cannot be read as a config: {error.strerror}"
        raise ConfigError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{file} is not JSON: {error}"
        raise ConfigError(message) from error
    if not isinstance(config, dict):
        message = f"{file} holds a {type(config).__name__}: a config is a JSON object of knobs and their values"
        raise ConfigError(message)
    return dict(as_config(config))


def config_beside(path: Path, otherwise: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config in `CONFIG_NAME` beside a trace, or in its folder; else another.

    Parameters
    ----------
    path
        A trace file, or a folder of them.
    otherwise
        The config where there is no such file.

    Returns
    -------
    Mapping
        Knob to value.

    Raises
    ------
    ConfigError
        If the file is there but is no config.

    Examples
    --------
    >>> config_beside(Path("data/samples/slow_loader"), {})["num_workers"]
    0
    >>> config_beside(Path("data/samples"), {"num_workers": 3})
    {'num_workers': 3}
    """
    file = (path if path.is_dir() else path.parent) / CONFIG_NAME
    return read_config(file) if file.is_file() else otherwise
