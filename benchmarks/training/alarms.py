"""Detection on the corpus: false alarms on healthy runs, and what is found in the others."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.training.baselines import halving_alarms
from benchmarks.training.counts import blocks_run, called_too_low, evaluated, evaluations_run, fires, first_steps, overfits
from benchmarks.training.data import SweepRun, TunedRun, deepobs, nanogpt, small_runs
from perfnb.run import Run
from perfnb.training.confidence import lower_bound
from perfnb.training.examples import curve_run
from perfnb.training.suggest import suggest_hyperparameters

BY_CURVE: Final = ("non_finite_loss", "rising_loss", "early_instability", "loss_spikes", "learning_rate_too_low")
PLATEAU_AT: Final = (0.25, 0.5, 0.75)
_HEALTHY_SHARE: Final = 0.25
_WINDOW: Final = 5
_MORE: Final = 0.01


class Row(NamedTuple):
    """Answers of one detector on one population."""

    population: str
    detector: str
    fired: int
    asked: int
    unable: int

    @property
    def high(self) -> float:
        """Upper end of the 80 % interval of the share that fires."""
        return 1.0 - lower_bound(self.asked - self.fired, self.fired) if self.asked else math.nan


def healthy() -> list[Row]:
    """Alarms on healthy runs: best quartile of each AlgoPerf workload, modded-nanogpt, DeepOBS runs with a regret up to 0.02."""
    rows = []
    best = list(best_quartile())
    with_curves = [run for run in best if len(run.losses)]
    rows += _asked("AlgoPerf best quartile", BY_CURVE, [logged(run) for run in with_curves])
    rows += _asked("AlgoPerf best quartile", ("overfitting",), [evaluations_run(run) for run in best])
    logs = [curve_run(losses, steps=steps.tolist(), config={"planned_steps": int(steps[-1])}) for steps, losses in nanogpt()]
    rows += _asked("modded-nanogpt", BY_CURVE, logs)
    keep = [run for run in deepobs() if run.truth == "keep"]
    rows += _asked("DeepOBS regret <= 0.02", ("non_finite_loss", "rising_loss"), [blocks_run(run) for run in keep])
    rows += _asked("DeepOBS regret <= 0.02", ("early_instability",), [first_steps(run) for run in keep])
    low = sum(run.truth == "keep" for run in called_too_low())
    rows.append(Row("DeepOBS regret <= 0.02", "learning_rate_too_low, problem left out", low, len(keep), 0))
    return rows


def others() -> list[Row]:
    """Alarms on runs that are not healthy."""
    rows = []
    best = {id(run) for run in best_quartile()}
    rest = [run for run in evaluated() if id(run) not in best]
    rows += _asked("AlgoPerf, not the best quartile", BY_CURVE[:-1], [logged(run) for run in rest if len(run.losses)])
    rows += _asked("AlgoPerf, not the best quartile", ("overfitting",), [evaluations_run(run) for run in rest])
    for is_near in (True, False):
        high = [run for run in deepobs() if run.truth == "too high" and run.is_near == is_near]
        name = f"DeepOBS rate too high, {'near' if is_near else 'far'}"
        rows += _asked(name, ("non_finite_loss", "rising_loss"), [blocks_run(run) for run in high])
        rows += _asked(name, ("early_instability",), [first_steps(run) for run in high])
    return rows


def named_divergences() -> tuple[int, int]:
    """Runs whose loss was not finite at some recorded point, and how many of them non_finite_loss finds."""
    runs = [curve_run(run.losses) for run in deepobs() if not np.isfinite(run.losses).all()]
    small = [np.array([math.nan if loss is None else loss for loss in run["loss"]], dtype=np.float64) for run in small_runs()]
    runs += [curve_run(losses) for losses in small if not np.isfinite(losses).all()]
    runs += [logged(run) for run in evaluated() if len(run.losses) and not np.isfinite(run.losses).all()]
    return sum(bool(fires("non_finite_loss", run)) for run in runs), len(runs)


def rate_cuts_for_overfitting() -> tuple[int, int]:
    """Suggestions of a lower rate that runs get of which only overfitting fires, and how many such runs there are."""
    runs = [evaluations_run(run) for run in evaluated() if overfits(run)]
    made = [[each for each in suggest_hyperparameters(run) if each.answers == "overfitting"] for run in runs]
    return sum(each.fix == "lower_learning_rate" for one in made for each in one), len(made)


def plateaus() -> Iterator[tuple[float, int, int, int, int]]:
    """Share of the run, finite runs, those with no more than 1 % to come, fires, and fires on those."""
    finite = [run for run in deepobs() if np.isfinite(run.losses).all()]
    for share in PLATEAU_AT:
        told = [(fires("loss_plateau", blocks_run(run, int(share * len(run.losses)))), _is_over(run, share)) for run in finite]
        yield (
            share,
            len(told),
            sum(over for _, over in told),
            sum(bool(fired) for fired, _ in told),
            sum(bool(fired) and over for fired, over in told),
        )


def fixed_rule_windows() -> list[tuple[str, int, int, int, int]]:
    """The fixed rule in windows of five points: population, windows that fire, windows, runs with a fire, runs."""
    populations = {
        "AlgoPerf best quartile": [run.losses for run in best_quartile() if len(run.losses)],
        "modded-nanogpt": [losses for _, losses in nanogpt()],
        "DeepOBS regret <= 0.02": [run.losses for run in deepobs() if run.truth == "keep"],
    }
    rows = []
    for name, curves in populations.items():
        told = [halving_alarms(curve, _WINDOW) for curve in curves]
        rows.append(
            (name, sum(fired for fired, _ in told), sum(of for _, of in told), sum(fired > 0 for fired, _ in told), len(told))
        )
    return rows


@cache
def best_quartile() -> tuple[TunedRun, ...]:
    """Trials of each AlgoPerf workload with the lowest last validation loss."""
    groups: dict[str, list[TunedRun]] = defaultdict(list)
    for run in evaluated():
        groups[run.workload].append(run)
    ranked = [sorted(group, key=lambda run: run.last) for group in groups.values()]
    return tuple(run for group in ranked for place, run in enumerate(group) if place < _HEALTHY_SHARE * len(group))


def logged(run: TunedRun) -> Run:
    """The logged points of a trial."""
    return curve_run(run.losses, steps=run.steps.tolist(), gradient_norm=run.norms)


def _asked(population: str, names: Iterable[str], runs: list[Run]) -> list[Row]:
    rows = []
    for name in names:
        said = [fires(name, run) for run in tqdm(runs, desc=f"{population}: {name}", leave=False)]
        rows.append(
            Row(population, name, sum(bool(each) for each in said), sum(each is not None for each in said), said.count(None))
        )
    return rows


def _is_over(run: SweepRun, share: float) -> bool:
    """Whether the rest of the run brought no more than 1 % of what the loss had fallen by then."""
    count = int(share * len(run.losses))
    seen = run.losses[:count]
    window = seen[-(count // 5) :]
    now = float(np.median(window[-max(1, len(window) // 5) :]))
    dropped = float(seen[: max(1, count // 50)].max()) - now
    return dropped > 0 and now - float(np.median(run.losses[-max(1, len(window) // 5) :])) <= _MORE * dropped
