"""Which cases peers are run on where all would take too long: each fault once per workload, and sixteen controls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from benchmarks.detection.case import Case

_SETTINGS: Final = ("alone", "small")
"""One setting of each workload: without workers in one process, the smaller batch of ranks."""

_WANTED_DOSE: Final = 0.4
_CONTROLS: Final = 16
_KEEPS_HISTORY: Final = ("earlier_run", "kept_graph", "kept_tensors")
"""Left out: they need runs stored before, or 300 steps of six times the batch, which takes half a minute per peer."""


def chosen(cases: Iterable[Case]) -> list[Case]:
    """The subset, in a fixed order: one dose of each single fault and workload, and sixteen controls.

    Of doses the one nearest to 40 % counts; a case with two faults is left out. Controls are taken in turn from the workloads, so
    that each kind of control is met.

    Examples
    --------
    >>> some = [Case("single", "mlp", "alone", "held_out", ("slow_item",), dose) for dose in (0.1, 0.4)]
    >>> [case.dose for case in chosen(some)]
    [0.4]
    """
    ordered = sorted(cases, key=lambda case: case.id)
    best: dict[tuple[str, str], Case] = {}
    for case in ordered:
        if len(case.faults) != 1 or case.setting not in _SETTINGS or case.faults[0] in _KEEPS_HISTORY:
            continue
        key = (case.workload, case.faults[0])
        if key not in best or _distance(case) < _distance(best[key]):
            best[key] = case
    return [*best.values(), *_controls([case for case in ordered if case.control])]


def _distance(case: Case) -> float:
    return abs(case.dose - _WANTED_DOSE) if isinstance(case.dose, float) else 0.0


def _controls(controls: list[Case]) -> list[Case]:
    """Up to sixteen, each kind first once, of one workload after another."""
    kinds: dict[str, list[Case]] = {}
    for case in controls:
        kinds.setdefault(f"{case.control}-{case.setting}-{case.seed}", []).append(case)
    rounds = max((len(each) for each in kinds.values()), default=0)
    taken = [each[(place + turn) % len(each)] for turn in range(rounds) for place, each in enumerate(kinds.values())]
    return list(dict.fromkeys(taken))[:_CONTROLS]
