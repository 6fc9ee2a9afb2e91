"""How often what a detector says was so, on curves of the corpus: the counts behind an observed confidence."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from benchmarks.training.data import Floats, SweepRun, TunedRun, algoperf, deepobs
from benchmarks.training.fits import score_weights
from perfnb.catalogue import training_detectors
from perfnb.detector import Unmeasured
from perfnb.findings import Finding
from perfnb.run import Run
from perfnb.training.curve_score import features, score
from perfnb.training.diagnoses.learning_rate_too_low import can_be_too_low
from perfnb.training.diagnosis import measure_training
from perfnb.training.examples import curve_run

FIRST: Final = 0.1
"""Share of a run after which the early detectors are asked."""

GIVEN_BACK: Final = 0.01
"""Share of its drop that a validation loss gives back by the end, from which overfitting has cost something."""

FEWEST_EVALUATIONS: Final = 12

SCORE_ABOVE: Final = 0.5
"""Score from which learning_rate_too_low fires."""


class Count(NamedTuple):
    """Fires of a detector after which its claim was so, and not; each near, then anywhere."""

    near_hits: int
    near_misses: int
    hits: int
    misses: int


def fires(detector: str, run: Run) -> bool | None:
    """Whether a detector of the product fires on a run; None where it cannot look."""
    found = next(each for each in training_detectors() if each.name == detector)
    try:
        return isinstance(measure_training(found, run), Finding)
    except Unmeasured:
        return None


def first_tenth(run: SweepRun) -> Run:
    """Blocks of the first tenth of a sweep's run."""
    return blocks_run(run, int(FIRST * len(run.losses)))


def blocks_run(run: SweepRun, count: int | None = None) -> Run:
    """Blocks of a sweep's run from the start on, as a log that has one row per block."""
    losses = run.losses if count is None else run.losses[:count]
    steps = list((np.arange(len(losses)) * run.block).tolist())
    return curve_run(losses, steps=steps, config={"planned_steps": run.planned_steps, "schedule": "constant"})


def first_steps(run: SweepRun) -> Run:
    """The first steps of a sweep's run, one by one."""
    return curve_run(run.raw, config={"planned_steps": run.planned_steps, "schedule": "constant"})


def too_high_counts() -> dict[str, Count]:
    """non_finite_loss over the first tenth, and early_instability where that is silent: whether the rate was too high."""
    told: dict[str, list[SweepRun]] = defaultdict(list)
    for run in deepobs():
        if diverged_early(run):
            told["non_finite_loss"].append(run)
        elif fires("early_instability", first_steps(run)):
            told["early_instability"].append(run)
    return {name: _counted(runs, lambda run: run.truth == "too high") for name, runs in told.items()}


def diverged_early(run: SweepRun) -> bool:
    """Whether non_finite_loss fires within the first tenth, on its blocks or on its first steps."""
    return bool(fires("non_finite_loss", first_tenth(run)) or fires("non_finite_loss", _within_tenth(run)))


def _within_tenth(run: SweepRun) -> Run:
    steps = min(len(run.raw), int(FIRST * run.planned_steps))
    return curve_run(run.raw[:steps])


def score_features() -> tuple[Floats, Floats, np.ndarray]:
    """Features of each run of the sweep, whether its rate is too low, and its problem."""
    runs = deepobs()
    values = np.array([features(run.losses[: int(FIRST * len(run.losses))], run.raw) for run in runs])
    return values, np.array([float(run.truth == "too low") for run in runs]), np.array([run.problem for run in runs])


def left_out_scores() -> Floats:
    """Score of each run by weights that were fitted without its problem."""
    values, truth, problem = score_features()
    made = np.zeros(len(truth))
    for name in sorted(set(problem)):
        weights = score_weights(values[problem != name], truth[problem != name])
        made[problem == name] = [score(each, weights) for each in values[problem == name]]
    return made


def called_too_low(threshold: float = SCORE_ABOVE) -> tuple[SweepRun, ...]:
    """Runs on which learning_rate_too_low fires with weights that were fitted without their problem."""
    values, _, _ = score_features()
    return tuple(
        run
        for run, total, found in zip(deepobs(), left_out_scores(), values, strict=True)
        if total > threshold and can_be_too_low(found, run.raw)
    )


def too_low_count() -> Count:
    """learning_rate_too_low with its own problem left out: whether the rate was too low."""
    return _counted(list(called_too_low()), lambda run: run.truth == "too low")


def overfitting_count() -> tuple[Count, Count]:
    """Overfitting on AlgoPerf: had the run given back over 1 % of its drop by the end? Of fires, and of the silent."""
    counts = {True: [0, 0], False: [0, 0]}
    for run in evaluated():
        said = overfits(run)
        if said is not None:
            counts[said][int(given_back(run) <= GIVEN_BACK)] += 1
    return Count(*counts[True], *counts[True]), Count(*counts[False], *counts[False])


@cache
def overfits(run: TunedRun) -> bool | None:
    """Whether overfitting fires on a trial's evaluations; None where it cannot look."""
    return fires("overfitting", evaluations_run(run))


def evaluated() -> list[TunedRun]:
    """AlgoPerf trials with twelve evaluations or more that end on a finite one."""
    return [run for run in algoperf() if len(run.eval_losses) >= FEWEST_EVALUATIONS and math.isfinite(run.last)]


def evaluations_run(run: TunedRun) -> Run:
    """The evaluations of a trial as a log with training and validation loss at each."""
    known = np.isfinite(run.eval_losses) & np.isfinite(run.eval_training)
    return curve_run(run.eval_training[known], steps=run.eval_steps[known].tolist(), validation_loss=run.eval_losses[known])


def given_back(run: TunedRun) -> float:
    """Share of the drop of the validation loss that was lost again by the last evaluation."""
    known = run.eval_losses[np.isfinite(run.eval_losses)]
    drop = float(known[0] - known.min())
    return float(known[-1] - known.min()) / drop if drop > 0 else 1.0


def _counted(runs: list[SweepRun], is_so: Callable[[SweepRun], bool]) -> Count:
    hits = [run for run in runs if is_so(run)]
    misses = [run for run in runs if not is_so(run)]
    return Count(sum(run.is_near for run in hits), sum(run.is_near for run in misses), len(hits), len(misses))


def as_json(count: Count, claim: str, population: str) -> dict[str, Any]:
    """A count as calibration.json holds it."""
    return {
        "hits": count.near_hits,
        "misses": count.near_misses,
        "claim": claim,
        "population": population,
        "all_hits": count.hits,
        "all_misses": count.misses,
    }
