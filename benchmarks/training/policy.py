"""Replay of the learning-rate policy on the sweep: each run a start, other rates its branches; and the baselines beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from benchmarks.training.baselines import halving_rule
from benchmarks.training.counts import called_too_low, diverged_early, fires, first_steps
from benchmarks.training.data import BETTER, MUCH, Floats, SweepRun, deepobs

LADDER: Final = (-1.0, -0.4, 0.0, 0.4, 1.0)
"""log10 of the factors 0.1, 0.4, 1, 2.5 and 10."""

MARGIN: Final = 0.05
"""Share of its own loss by which a branch must be below the present rate's to be suggested."""

_GRID: Final = 5  # rates per decade of the sweep
_FEWEST: Final = 3

Sweep = dict[int, SweepRun]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy made of one start.

    Attributes
    ----------
    run
        The start.
    regret
        Of the rate that the policy ends on; of a random move the mean.
    worse, much_worse
        Whether it is worse by over 0.01, over 0.05; of a random move the share.
    cost
        Steps of all branches, in full runs.
    """

    run: SweepRun
    regret: float
    worse: float
    much_worse: float
    cost: float = 0.0


@cache
def sweeps() -> dict[tuple[str, str], Sweep]:
    """Runs of each problem and optimizer by rate, in fifths of a decade."""
    made: dict[tuple[str, str], Sweep] = defaultdict(dict)
    for run in deepobs():
        made[run.problem, run.optimizer][round(run.log_rate * _GRID)] = run
    return made


def replay(choose: Callable[[SweepRun, Sweep], tuple[int, float]]) -> list[Outcome]:
    """Outcomes of a policy that says, for a start and its sweep, which rate to end on and what that cost."""
    made = []
    for run in deepobs():
        sweep = sweeps()[run.problem, run.optimizer]
        place, cost = choose(run, sweep)
        end = sweep[place].regret
        gain = run.regret - end
        made.append(Outcome(run, end, float(gain < -BETTER), float(gain < -MUCH), cost))
    return made


def nothing(run: SweepRun, _: Sweep) -> tuple[int, float]:
    """Keep the rate."""
    return _place(run), 0.0


def fixed_rule(run: SweepRun, sweep: Sweep) -> tuple[int, float]:
    """The rule that halves the rate, on the losses of the epochs; half is not on the grid of the sweep, x0.4 is."""
    return _nearest(sweep, _place(run) - 2 * int(halving_rule(run.epoch_losses))), 0.0


def passive(run: SweepRun, sweep: Sweep) -> tuple[int, float]:
    """What the curve alone may make a user do who does not probe: x0.1 after a divergence, x0.4 after a jump, x2.5 if too low."""
    shift = {"non_finite_loss": -5, "early_instability": -2, "learning_rate_too_low": 2}.get(first_symptom(run), 0)
    return _nearest(sweep, _place(run) + shift), 0.0


@cache
def _symptoms() -> dict[str, str]:
    low = {run.name for run in called_too_low()}
    told = {}
    for run in deepobs():
        if diverged_early(run):
            told[run.name] = "non_finite_loss"
        elif fires("early_instability", first_steps(run)):
            told[run.name] = "early_instability"
        elif run.name in low:
            told[run.name] = "learning_rate_too_low"
    return told


def first_symptom(run: SweepRun) -> str:
    """The symptom that the first tenth of a run shows first in order of precedence; empty where it shows none."""
    return _symptoms().get(run.name, "")


def random_moves() -> list[Outcome]:
    """One of the five factors at random: the mean over all of them."""
    made = []
    for run in deepobs():
        sweep = sweeps()[run.problem, run.optimizer]
        ends = [sweep[_nearest(sweep, _place(run) + round(shift * _GRID))].regret for shift in LADDER]
        gains = run.regret - np.array(ends)
        made.append(Outcome(run, float(np.mean(ends)), float((gains < -BETTER).mean()), float((gains < -MUCH).mean())))
    return made


def others_median(run: SweepRun, sweep: Sweep) -> tuple[int, float]:
    """Jump to the median of the best rates of the other problems."""
    return _nearest(sweep, round(prior_rate(run) * _GRID)), 0.0


def prior_rate(run: SweepRun) -> float:
    """log10 of the median best rate of the same optimizer on the other problems."""
    others = [each.best_log_rate for each in _bests(run.optimizer) if each.problem != run.problem]
    return float(np.median(others))


@cache
def _bests(optimizer: str) -> tuple[SweepRun, ...]:
    return tuple(next(iter(sweep.values())) for (_, other), sweep in sweeps().items() if other == optimizer)


def ladder(short: float, long: float, *, with_prior: bool) -> Callable[[SweepRun, Sweep], tuple[int, float]]:
    """The policy: five factors to the short share, the best two and the present rate to the long one; the prior checked or not.

    The z gate of a probe is not replayed: rates of the sweep share seeds, and that they share batches is assumed.
    """

    def choose(run: SweepRun, sweep: Sweep) -> tuple[int, float]:
        here = _place(run)
        centre, probed = here, {here}
        prior = _nearest(sweep, round(prior_rate(run) * _GRID))
        if with_prior and abs(prior - here) > _GRID:
            probed.add(prior)
            centre = min((here, prior), key=lambda place: _loss(sweep[place], short))
        probed |= {place for shift in LADDER if (place := centre + round(shift * _GRID)) in sweep}
        best = sorted(probed, key=lambda place: _loss(sweep[place], short))[:2]
        finalists = {*best, here}
        cost = short * len(probed) + (long - short) * len(finalists)
        winner = min(finalists, key=lambda place: _loss(sweep[place], long))
        present, lowest = _loss(sweep[here], long), _loss(sweep[winner], long)
        is_clear = np.isfinite(lowest) and (not np.isfinite(present) or present - lowest >= MARGIN * abs(present))
        return (winner if is_clear else here), cost

    return choose


def _loss(run: SweepRun, share: float) -> float:
    """Mean loss of the last fifth of a branch that ran for a share of the run; infinite where it was not finite."""
    count = max(10, int(share * len(run.losses)))
    losses: Floats = run.losses[:count]
    mean = float(losses[-max(_FEWEST, count // 5) :].mean())
    return mean if np.isfinite(losses).all() and np.isfinite(mean) else np.inf


def _place(run: SweepRun) -> int:
    return round(run.log_rate * _GRID)


def _nearest(sweep: Sweep, place: int) -> int:
    return min(sweep, key=lambda other: abs(other - place))
