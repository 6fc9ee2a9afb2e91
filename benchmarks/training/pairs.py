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

GATE_Z: Final = -2.0
"""A branch is called better only below this z."""

SHIFTS: Final = (-1.0, -0.6, -0.4, 0.4, 0.6, 1.0)
_AUTOCORRELATION: Final = 1.5  # prior of training.md 6: how much wider the mean of a half is than independent steps make it
_TRUNK: Final = 80
_FEWEST: Final = 3
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


def effect_of(base: Floats, branch: Floats, start: float) -> tuple[float, float]:
    """Effect and z of a branch against its base over their common steps (training.md 6); effect NaN where it is not defined."""
    if not np.isfinite(branch).all():
        return -1.0, math.inf
    fifth = max(_FEWEST, len(base) // 5)
    one, other = float(base[-fifth:].mean()), float(branch[-fifth:].mean())
    scale = start - min(one, other)
    if not scale > 0.0:
        return math.nan, math.nan
    both = np.concatenate([base, branch])
    shift = 1.01 * min(float(both.min()), 0.0)
    logs = np.log(np.maximum(branch - shift, 1e-8)) - np.log(np.maximum(base - shift, 1e-8))
    half = logs[len(logs) // 2 :]
    spread = _AUTOCORRELATION * float(half.std(ddof=1)) / math.sqrt(len(half))
    z = float(half.mean()) / spread if spread > 0 else 0.0
    return float(np.clip((one - other) / scale, -1.0, 1.0)), z


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
                effect, z = effect_of(first, other.losses[:count], float(base.raw[:3].mean()))
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
        effect, z = effect_of(base, other, float(losses[:3].mean()))
        if not math.isnan(effect):
            made.append(Pair(run["task_name"], effect, z, run["regret"] - branch_regret(run, factor), run["near"]))
    return made


def _array(values: list[Any]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
