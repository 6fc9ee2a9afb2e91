"""Every detector and every fix that there is, found by the files that hold them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

import perfnb.detectors
import perfnb.fixes
import perfnb.training.diagnoses
from perfnb.detector import Detector
from perfnb.fix import Fix

# Detectors that claim the same ledger part claim it in this order of families, and by name within one.
_FAMILIES: Final = (
    "data",
    "device idle",
    "device compute",
    "communication",
    "imbalance",
    "host",
    "memory",
    "over time",
    "training",
)


@cache
def detectors() -> tuple[Detector, ...]:
    """All detectors, in the order in which they claim time.

    Examples
    --------
    >>> {"data_stall", "host_sync"} <= {detector.name for detector in detectors()}
    True
    """
    return in_order(
        getattr(import_module(f"perfnb.detectors.{file.name}"), file.name) for file in iter_modules(perfnb.detectors.__path__)
    )


@cache
def training_detectors() -> tuple[Detector, ...]:
    """All detectors of the training itself, by name; they claim no time and are ranked apart.

    Examples
    --------
    >>> {"non_finite_loss", "overfitting"} <= {detector.name for detector in training_detectors()}
    True
    """
    files = iter_modules(perfnb.training.diagnoses.__path__)
    return in_order(getattr(import_module(f"perfnb.training.diagnoses.{file.name}"), file.name) for file in files)


def in_order(found: Iterable[Detector]) -> tuple[Detector, ...]:
    """Detectors in the order in which they claim time: by family, bases last, by name; each after those that it names.

    Raises
    ------
    ValueError
        If some name one another in a circle.
    """
    left = sorted(found, key=lambda each: (_FAMILIES.index(each.family), each.is_base, each.name))
    ordered: list[Detector] = []
    while left:
        waiting = {each.name for each in left}
        first = next((each for each in left if not waiting.intersection(each.after)), None)
        if first is None:
            message = f"detectors wait for one another: {', '.join(sorted(waiting))}"
            raise ValueError(message)
        left.remove(first)
        ordered.append(first)
    return tuple(ordered)


@cache
def fixes() -> tuple[Fix, ...]:
    """All fixes, by name.

    Examples
    --------
    >>> {"cache_samples", "raise_num_workers"} <= {fix.name for fix in fixes()}
    True
    """
    return tuple(getattr(import_module(f"perfnb.fixes.{file.name}"), file.name) for file in iter_modules(perfnb.fixes.__path__))
