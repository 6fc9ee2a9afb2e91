"""Every command that there is, found by the files that hold them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import perfnb.commands

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - what add_subparsers returns has no public name

AddTo = Callable[["Subparsers"], None]


def commands() -> Mapping[str, AddTo]:
    """Name of each command to the function that adds its parser, by name.

    Examples
    --------
    >>> {"analyze", "doctor", "predict"} <= set(commands())
    True
    """
    modules = {file.name: import_module(f"perfnb.commands.{file.name}") for file in iter_modules(perfnb.commands.__path__)}
    return {name: module.add_to for name, module in sorted(modules.items()) if hasattr(module, "add_to")}
