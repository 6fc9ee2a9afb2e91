"""Time that the phases of a step took, and how phases are merged into those that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perfnb.record.phase_names import INFERENCE, SHOWN_AS, Phase


@dataclass(slots=True)
class Spent:
    """Time of one phase in one step."""

    wall_ns: int = 0
    cpu_ns: int = 0
    runqueue_ns: int = 0
    spans: list[tuple[Any, Any]] = field(default_factory=list)  # events of the device at the edges of its stretches

    def add(self, more: Spent) -> None:
        """Take up another's time."""
        self.wall_ns += more.wall_ns
        self.cpu_ns += more.cpu_ns
        self.runqueue_ns += more.runqueue_ns
        self.spans += more.spans


def merged(spent: Mapping[Phase, Spent], evaluated: frozenset[int | None]) -> dict[str, Spent]:
    """Phases as they are shown.

    A scaler's share of the optimizer's step belongs to it, and waiting for batches to evaluate on belongs to evaluating.
    """
    shown: dict[str, Spent] = {}
    for phase, more in spent.items():
        one = shown.setdefault(_shown_as(phase, evaluated), more)
        if one is not more:
            one.add(more)
    return shown


def _shown_as(phase: Phase, evaluated: frozenset[int | None]) -> str:
    if isinstance(phase, str):
        return SHOWN_AS.get(phase, phase)
    return INFERENCE if phase[1] in evaluated else phase[0]
