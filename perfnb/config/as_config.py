"""as_config(thing): any home of a config, seen as one mapping of canonical knobs to values."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

from perfnb.config.dialects.dialect import Dialect
from perfnb.config.dialects.known import DIALECTS
from perfnb.config.file_home import FORMATS, FileHome
from perfnb.config.home import Home
from perfnb.config.loader_home import LoaderHome, loader_class
from perfnb.config.object_home import ObjectHome
from perfnb.config.tree import Path
from perfnb.errors import ConfigError
from perfnb.safe_text import clean

_MADE_ALREADY: Final[Mapping[str, str]] = {
    "Trainer": "a trainer does not take other arguments once it is made: pass the mapping of its arguments, or TrainingArguments",
    "Accelerator": "an Accelerator does not take other arguments once it is made: pass the mapping of them, or its config file",
    "DeepSpeedEngine": "an engine does not take other arguments once it is made: pass its config, a mapping or a JSON file",
    "ListConfig": "a list of OmegaConf holds nothing by name: pass the config that it stands in",
}
"""Class to what to pass instead of an object of it."""


def as_config(config: Any, *, dialect: str | None = None, names: Mapping[str, str | Path] | None = None) -> Home:
    """Any home of a config as one mapping of canonical knobs to values, which every function of perfnb takes.

    Parameters
    ----------
    config
        A mapping (nested or not), a dataclass (frozen or not), an argparse Namespace, an OmegaConf config, Hugging Face
        TrainingArguments, the arguments of Lightning's Trainer or of `Accelerator` as a mapping, a DeepSpeed config, a live
        `torch.utils.data.DataLoader`, or the path of a .json, .yaml or .toml file that holds one of these.
    dialect
        Whose names it has: plain, deepspeed, accelerate, huggingface, lightning, accelerator. Recognised by default.
    names
        Knob to the name that holds it, for names that perfnb does not know: `{"num_workers": "data.loader.procs"}`; a tuple
        where a name itself has a dot.

    Returns
    -------
    Home
        A mapping; `perfnb.apply` gives a new one. `.value` is the config in its own make.

    Raises
    ------
    ConfigError
        If it is none of these, or cannot be read.

    Examples
    --------
    >>> as_config({"accumulate_grad_batches": 2, "precision": "bf16-mixed"})["precision"]
    'bf16'
    >>> as_config({"loader": {"procs": 2}}, names={"num_workers": "loader.procs"})["num_workers"]
    2
    """
    paths = {knob: tuple(name.split(".")) if isinstance(name, str) else tuple(name) for knob, name in (names or {}).items()}
    if isinstance(config, Home):
        return config
    named = _dialect(dialect)
    if isinstance(config, (str, os.PathLike)):
        return FileHome(config, named, paths)
    kind = loader_class()
    if kind is not None and isinstance(config, kind):
        return LoaderHome(config)
    if isinstance(config, (Mapping, argparse.Namespace, SimpleNamespace)) or _is_dataclass(config):
        return ObjectHome(config, named, paths)
    raise ConfigError(_unknown(config))


def _is_dataclass(config: Any) -> bool:
    return dataclasses.is_dataclass(config) and not isinstance(config, type)


def _dialect(name: str | None) -> Dialect | None:
    if name is not None and name not in DIALECTS:
        message = f"there is no dialect {clean(name, 80)!r}: there are {', '.join(DIALECTS)}"
        raise ConfigError(message)
    return None if name is None else DIALECTS[name]


def _unknown(config: Any) -> str:
    for kind in type(config).__mro__:
        if kind.__name__ in _MADE_ALREADY:
            return _MADE_ALREADY[kind.__name__]
    given = f"the class {config.__name__}" if isinstance(config, type) else f"a {type(config).__name__}"
    return (
        f"{clean(given, 80)} is no config that perfnb knows: there are mappings, dataclasses, Namespaces, OmegaConf, "
        f"TrainingArguments, DataLoaders, and paths of {', '.join(FORMATS)} files"
    )
