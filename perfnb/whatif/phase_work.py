"""Work of each phase of a host's step, and edits that make phases take longer or shorter: a CPU job's forward, backward, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.rank_model import Time

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

Floats = NDArray[np.float64]

COMPUTE: Final = ("forward", "backward")
_ELSEWHERE: Final = ("data", "communication")
_NOBODYS: Final = "unsplit"
_NEEDS: Final = "a run of perfnb.record whose model and optimizer are seen, so that forward, backward and optimizer have times"

_known: WeakKeyDictionary[Run, dict[tuple[int, ...], PhaseTimes]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class PhaseEdit:
    """Phases that a change makes longer or shorter.

    Attributes
    ----------
    phases
        Which.
    estimate
        Name of the quantity that says by how much.
    added
        A phase of which that share is added to each; None where the quantity is a factor of the phases themselves.
    """

    phases: tuple[str, ...]
    estimate: str
    added: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PhaseTimes:
    """By rank and phase, waiting and computing time of each steady step, outside of the loader and of exchanging data."""

    wait_us: Mapping[int, Mapping[str, Floats]]
    cpu_us: Mapping[int, Mapping[str, Floats]]

    def total_us(self, phases: Sequence[str]) -> Floats:
        """Time of each steady step in some phases, mean over ranks."""
        per_rank = [
            np.sum([wait[phase] + self.cpu_us[rank][phase] for phase in phases if phase in wait], axis=0)
            for rank, wait in self.wait_us.items()
        ]
        mean: Floats = np.mean(per_rank, axis=0)
        return mean

    def names(self) -> set[str]:
        """Phases that every rank has times of."""
        return set.intersection(*(set(own) for own in self.wait_us.values())) if self.wait_us else set()


def phase_times(run: Run, steps: Sequence[int]) -> PhaseTimes:
    """Times of each phase over the steady steps of a run; kept for as long as the run lives.

    Parameters
    ----------
    run
        The run.
    steps
        Numbers of the steady steps.
    """
    kept, key = _known.setdefault(run, {}), tuple(steps)
    if key not in kept:
        kept[key] = _made(run, key)
    return kept[key]


def phases_us(model: StepModel, *phases: str) -> float | Unknown:
    """Mean time per steady step in phases of a CPU job, or why they cannot be told apart."""
    found = phase_times(model.run, model.measured.numbers)
    absent = sorted(set(phases) - found.names())
    if absent:
        there = ", ".join(sorted(found.names())) or "none"
        return Unknown(
            f"{' and '.join(absent)} cannot be told apart in the steps of this run; phases with times: {there}", _NEEDS
        )
    return float(found.total_us(phases).mean())


def factor_of(knob: str) -> str:
    """Name of the estimate of how many times as long a knob's phases take."""
    return f"factor of {knob}"


def edited_times(model: StepModel, rank: int, own: Sequence[Time], values: Mapping[str, float]) -> Sequence[Time]:
    """Work of each steady step of a rank after the model's edits of phases, given its work before."""
    if not model.phase_edits:
        return own
    times = phase_times(model.run, model.measured.numbers)
    both = {phase: np.stack([wait, times.cpu_us[rank][phase]]) for phase, wait in times.wait_us.get(rank, {}).items()}
    change = np.zeros((2, len(own)))
    for phase, before in both.items():
        after, factor = before, 1.0
        for edit in model.phase_edits.values():
            if phase not in edit.phases:
                continue
            if edit.added is None:
                factor *= values[edit.estimate]
            elif edit.added in both:
                after = after + values[edit.estimate] * both[edit.added]
        change += after * factor - before
    return [
        Time(max(time.wait_us + wait, 0.0), max(time.cpu_us + cpu, 0.0), time.unknown_us)
        for time, wait, cpu in zip(own, *change.tolist(), strict=True)
    ]


def _made(run: Run, steps: tuple[int, ...]) -> PhaseTimes:
    rows = run.phases[run.phases["step"].isin(steps)]
    rows = rows.assign(phase=rows["phase"].astype(object))
    rows = rows[~rows["phase"].isin([*_ELSEWHERE, _NOBODYS])]
    is_split = bool(len(run.phases)) and bool(run.phases[["cpu_us", "blocked_us"]].notna().all(axis=None))
    found: tuple[dict[int, dict[str, Floats]], dict[int, dict[str, Floats]]] = ({}, {})
    for side, column in zip(found, ("blocked_us", "cpu_us") if is_split else (None, "wall_us"), strict=True):
        for rank in run.ranks:
            own = rows[rows["rank"] == rank]
            side[rank] = {
                str(phase): (
                    np.zeros(len(steps))
                    if column is None
                    else each.groupby("step")[column].sum().reindex(steps).fillna(0.0).to_numpy(dtype=np.float64)
                )
                for phase, each in own.groupby("phase")
            }
    return PhaseTimes(*found)
