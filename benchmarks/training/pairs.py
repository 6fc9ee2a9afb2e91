"""Paired branches of the corpus: what a short probe would have shown, and what the change brought in the end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from benchmarks.training.data import Floats, SweepRun, branch_regret, deepobs, small_runs
from perfnb.training.probe_effect import paired_effect

GATE_Z: Final = -2.0
"""A branch is called better only below this z."""

SHIFTS: Final = (-1.0, -0.6, -0.4, 0.4, 0.6, 1.0)
_TRUNK: Final = 80
_LIKELY: Final = 0.5


@dataclass(frozen=True, slots=True)
class Pair:
    """A branch beside its base.

    Attributes
    ----------
    task
        Problem, or small task: pairs of one are never in two folds.
    effect, z
        Difference over the probe's last fifth as a share of the drop; its standard score. NaN where there is none.
    gain
        Regret of the base less that of the branch.
    is_near
        Whether the base's rate is within a decade of the best.
    """

    task: str
    effect: float
    z: float
    gain: float
    is_near: bool

    @property
    def feature(self) -> float:
        """Signed square root of the effect."""
        return math.copysign(math.sqrt(abs(self.effect)), self.effect)


def mid_run(chance_of: Callable[[str, float], float], steps: int) -> list[tuple[bool, float, float, float]]:
    """A probe of six factors at step 80 of each small run: nearness; regret of start and end, and the least of all branches.

    The branch with the largest effect is taken if its probability is above a half and its z below -2; else the rate is kept.

    Parameters
    ----------
    chance_of
        Probability of a task's pair with that feature, by a line that was fitted without the task.
    steps
        Length of the probe.
    """
    made = []
    for run in small_runs():
        if not run["branch"]:
            continue
        told = [(pair, run["regret"] - pair.gain) for pair in _branches(run, steps)]
        clear = [(pair.effect, end) for pair, end in told if pair.z < GATE_Z and chance_of(pair.task, pair.feature) > _LIKELY]
        start = float(run["regret"])
        least = min([start, *(branch_regret(run, factor) for factor in run["branch"])])
        made.append((bool(run["near"]), start, float(max(clear)[1]) if clear else start, least))
    return made


@cache
def deepobs_pairs(share: float = 0.1) -> tuple[Pair, ...]:
    """Pairs of the sweep at a share of the run: each run against those of 10^-1 to 10^1 times its rate."""
    sweeps: dict[tuple[str, str], dict[int, SweepRun]] = defaultdict(dict)
    for run in deepobs():
        sweeps[run.problem, run.optimizer][round(run.log_rate * 5)] = run
    made = []
    for sweep in sweeps.values():
        for place, base in sweep.items():
            count = max(10, int(share * len(base.losses)))
            first = base.losses[:count]
            if not np.isfinite(first).all():
                continue
            for shift in SHIFTS:
                other = sweep.get(place + round(shift * 5))
                if other is None:
                    continue
                effect, z = paired_effect(first, other.losses[:count], float(base.raw[:3].mean()))
                if not math.isnan(effect):
                    made.append(Pair(base.problem, effect, z, base.regret - other.regret, base.is_near))
    return tuple(made)


@cache
def small_pairs(steps: int = 40) -> tuple[Pair, ...]:
    """Pairs of the small runs: branches from step 80 on the same batches."""
    made = []
    for run in small_runs():
        if run["branch"]:
            made += _branches(run, steps)
    return tuple(made)


def _branches(run: dict[str, Any], steps: int) -> list[Pair]:
    losses = _array(run["loss"])
    base = losses[_TRUNK : _TRUNK + steps]
    if len(base) < steps or not np.isfinite(base).all():
        return []
    made = []
    for factor, branch in run["branch"].items():
        other = _array(branch["loss"])[:steps]
        other = np.concatenate([other, np.full(steps - len(other), np.nan)])
        effect, z = paired_effect(base, other, float(losses[:3].mean()))
        if not math.isnan(effect):
            made.append(Pair(run["task_name"], effect, z, run["regret"] - branch_regret(run, factor), run["near"]))
    return made


def _array(values: list[Any]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
