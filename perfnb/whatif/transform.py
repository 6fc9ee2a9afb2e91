"""The @transform contract: how the change of one knob edits the model of a step, and where those edits are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

Edit = Callable[["StepModel", Change], "StepModel | Unknown"]


VERSIONS: Final = MappingProxyType({"precision": 2, "memory_format": 2, "part": 2, "accumulation": 2})
"""Version of each model that was changed after its first outcomes: a track record counts for one version; all others are 1."""


def model_names(models: Iterable[str]) -> str:
    """Models with their versions, as predictions name them.

    Examples
    --------
    >>> model_names(["precision", "loader_queue"])
    'loader_queue 1 + precision 2'
    """
    return " + ".join(f"{each} {VERSIONS.get(each, 1)}" for each in sorted(set(models)))


@dataclass(frozen=True, slots=True)
class Transform:
    """The edit of one knob.

    Attributes
    ----------
    knob
        Canonical name of the knob.
    model
        Name of the model that it edits.
    error
        80 % half-width of log(actual / predicted) that the model adds, until there is a track record.
    needs
        Tables of the run without which it cannot be made.
    function
        Gives a new model, or says why it cannot.
    """

    knob: str
    model: str
    error: float
    needs: tuple[str, ...]
    function: Edit


def transform(knob: str, *, model: str, error: float, needs: tuple[str, ...]) -> Callable[[Edit], Transform]:
    """Make a function the edit of a knob; see `Transform`. It must commute with every other one."""

    def made(function: Edit) -> Transform:
        return Transform(knob, model, error, needs, function)

    return made


@cache
def transforms() -> Mapping[str, Transform]:
    """Every transform of this folder by its knob."""
    package = importlib.import_module("perfnb.whatif")
    found: dict[str, Transform] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        for value in vars(importlib.import_module(f"perfnb.whatif.{module}")).values():
            if isinstance(value, Transform):
                found[value.knob] = value
    return found
