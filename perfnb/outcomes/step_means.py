"""What the steps of a run took, and how far their mean is from certain: a block bootstrap over steps and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfnb.bootstrap import resamples
from perfnb.errors import NoStepsError
from perfnb.ledger import steady_steps, step_ledger
from perfnb.run import Run
from perfnb.work import rank_work

Floats = NDArray[np.float64]

_DRAWS: Final = 500


def step_durations(run: Run) -> Floats:
    """Duration of each steady step in microseconds, in order: of its critical rank, or the mean over ranks where none waits.

    Raises
    ------
    NoStepsError
        If the run has no step boundaries.
    """
    steps = steady_steps(run)
    if steps.empty:
        raise NoStepsError(run.missing.get("steps", "the run has no steps"))
    if len(run.ranks) == 1:
        return steps.sort_values("start_us")["duration_us"].to_numpy()
    work = rank_work(step_ledger(run)).merge(steps[["rank", "step"]], on=["rank", "step"])
    waits = bool((work["with_peers_us"] > 0).any())
    return (work[work["is_critical"]] if waits else work).groupby("step")["duration_us"].mean().to_numpy()


def drawn_means(durations: Sequence[Floats], *, seed: int, runs_seed: int) -> Floats:
    """Mean step of each bootstrap draw; several runs are drawn with replacement, then blocks of steps within each.

    Parameters
    ----------
    durations
        Duration of each steady step, run by run.
    seed
        Of the draws of steps; another on each side.
    runs_seed
        Of the draws of runs; the same on both sides where runs are pairs.
    """
    means = np.stack(
        [each[resamples(len(each), _DRAWS, seed=seed + 100 * number)].mean(axis=1) for number, each in enumerate(durations)]
    )
    if len(means) == 1:
        single: Floats = means[0]
        return single
    runs = np.random.default_rng(runs_seed).integers(0, len(means), size=(_DRAWS, len(means)))
    drawn: Floats = means[runs, np.arange(_DRAWS)[:, np.newaxis]].mean(axis=1)
    return drawn
