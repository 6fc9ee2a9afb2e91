"""What a campaign is made of: stages of units, each a fresh process, and the order in which they are run."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import Any, Final, Protocol

from benchmarks.gpu import stages as _stages

ESSENTIAL: Final = 1
"""Value of the units without which a stage answers nothing; larger numbers are worth less."""

LEAST_S: Final = 4.0
"""With less time left no unit is started."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Unit:
    """One process of a stage.

    Attributes
    ----------
    stage, name
        Where its result goes.
    value
        How much it matters: `ESSENTIAL`, then 2, 3.
    expected_s
        How long it should take on a GPU.
    limit_s
        When it is killed.
    settings
        What the stage needs to know of it; JSON.
    environment
        Variables of its process, set before torch is imported.
    """

    stage: str
    name: str
    value: int
    expected_s: float
    limit_s: float
    settings: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    environment: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


class Stage(Protocol):
    """A module in `benchmarks.gpu.stages`; it imports torch and perfnb inside `run` only."""

    SHARE: float
    """Share of the campaign's time that it should get."""
    PACKAGES: Sequence[str]
    """What `run` imports; the first that is not installed is named in the result instead of running."""

    @staticmethod
    def units(*, rehearse: bool) -> list[Unit]:
        """Its units, for a GPU or for a rehearsal."""
        ...

    @staticmethod
    def run(unit: Unit, folder: Any, *, rehearse: bool) -> dict[str, Any]:
        """Do the work in the unit's own process; files go into `folder`, what is returned is the result (JSON)."""
        ...


class NeedsCudaError(Exception):
    """A unit went as far as it goes without CUDA; `result` is what it found on the way."""

    def __init__(self, what: str, result: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__(what)
        self.result = dict(result)


def stage_names() -> list[str]:
    """Every stage there is: one file each."""
    return sorted(module.name for module in pkgutil.iter_modules(_stages.__path__) if not module.name.startswith("_"))


def stage(name: str) -> Any:
    """The module of a stage; see `Stage`."""
    return importlib.import_module(f"{_stages.__name__}.{name}")


def missing_package(module: ModuleType | Any) -> str | None:
    """The first package that a stage needs and that is not installed."""
    return next((name for name in module.PACKAGES if importlib.util.find_spec(name) is None), None)


def in_order(units: Iterable[Unit]) -> list[Unit]:
    """Most valuable first, among those of one value the long ones first."""
    return sorted(units, key=lambda unit: (unit.value, -unit.expected_s, unit.stage, unit.name))


def next_unit(waiting: Sequence[Unit], used_s: Mapping[str, float], shares: Mapping[str, float], total_s: float) -> Unit | None:
    """The first in order whose stage has time of its share left; where none has, the first of all.

    Examples
    --------
    >>> first, second = Unit("a", "x", 1, 5, 9), Unit("b", "y", 2, 5, 9)
    >>> next_unit([first, second], {"a": 60.0}, {"a": 0.5, "b": 0.5}, 100.0).name
    'y'
    """
    within = (unit for unit in waiting if used_s.get(unit.stage, 0.0) < shares[unit.stage] * total_s)
    return next(within, waiting[0] if waiting else None)
