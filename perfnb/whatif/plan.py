"""Which suggestions to apply, in which order: each step's gain is what it adds to a joint simulation of those before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import numpy as np

from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import MixedCurrency, PerfnbError
from perfnb.fix import Suggestion
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.whatif.step_model import StepModel, edited, predict
from perfnb.whatif.step_simulation import simulated_step_us, simulated_steps_us
from perfnb.whatif.uncertainty import Calibration, draw_rows

SMALLEST_GAIN_SHARE: Final = 0.02  # whatif contract, section 8
SMALLEST_LOSS_SHARE: Final = 0.005
BEST_SHARE: Final = 0.01
MOST_PAIRED: Final = 12
TIME_METRICS: Final = ("step_us", "sample_us", "epoch_us")
_IN_CODE: Final = ("attention", "cache_samples", "cuda_graphs", "detach_logged_tensors", "memory_format", "parallelism")
_DRAWS: Final = 20
_LOW: Final = 0.1

Chosen = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One suggestion in a plan.

    Attributes
    ----------
    suggestion
        What to apply.
    prediction
        The step once this and all before it are applied.
    gain_us
        What it takes off the step that those before it left; the gains of all steps sum to the whole gain. Where the number of
        samples changes, of the time of as many samples as a step has now.
    gain_alone_us
        What it would take off the step of now.
    loss_if_left_out_us
        What the step would be longer by if it alone were left out of the plan.
    """

    suggestion: Suggestion
    prediction: Prediction
    gain_us: float
    gain_alone_us: float
    loss_if_left_out_us: float


def order(
    run: Run,
    suggestions: Sequence[Suggestion],
    config: Mapping[str, Any] | None = None,
    *,
    budget: int | None = None,
    calibration: Calibration | None = None,
) -> tuple[PlanStep, ...]:
    """The suggestions worth applying, in the order in which to apply them.

    Greedy: next comes the largest 10th percentile of the marginal gain, over bootstrap draws that all candidates share, until
    less than 2 % would be gained. Suggestions on one knob exclude each other. Two changes that help only together are found by
    trying every pair first. What turns out not to be needed is dropped again.

    Parameters
    ----------
    run
        The run.
    suggestions
        Candidates; those whose change cannot be predicted are left out.
    config
        The training's config; the run's own by default.
    budget
        Most suggestions to apply; as many as are worth it by default.
    calibration
        Track record for the intervals.

    Raises
    ------
    MixedCurrency
        If some suggestions are judged by time and others by the loss.
    PerfnbError
        If the budget is no number of changes.
    """
    if budget is not None and (type(budget) is not int or budget < 0):
        message = f"budget={budget!r} is no number of changes: give a whole number from 0 on"
        raise PerfnbError(message)
    _one_currency(suggestions)
    ordered = sorted(suggestions, key=lambda each: (each.fix, str(each.changes)))
    search = _Search(run, ordered, run.config if config is None else config)
    if not search.known:
        return ()
    chosen = search.without_idle(search.greedy(len(ordered) if budget is None else budget))
    steps: list[PlanStep] = []
    for count in range(1, len(chosen) + 1):
        made = predict(run, search.changes(chosen[:count]), config, calibration=calibration)
        if isinstance(made, Unknown):
            return tuple(steps)
        left_out = tuple(each for each in chosen if each != chosen[count - 1])
        steps.append(
            PlanStep(
                suggestion=ordered[chosen[count - 1]],
                prediction=made,
                gain_us=search.step_us(chosen[: count - 1]) - search.step_us(chosen[:count]),
                gain_alone_us=search.step_us(()) - search.step_us(chosen[count - 1 : count]),
                loss_if_left_out_us=search.step_us(left_out) - search.step_us(chosen),
            )
        )
    return tuple(steps)


def best_value(run: Run, config: Mapping[str, Any] | None, knob: str, values: Iterable[Any]) -> Any | None:
    """The first of the values, smallest first, whose step is within 1 % of the best; None where none can be predicted.

    Examples
    --------
    >>> import perfnb
    >>> run = perfnb.read_trace("data/samples/slow_loader")
    >>> best_value(run, {"num_workers": 0}, "num_workers", [8, 2, 4])
    2
    """
    config = run.config if config is None else config
    if not has_knob(config, knob):
        return None
    steps: dict[Any, float] = {}
    for value in values:
        model = edited(run, [Change(knob, value_of(config, knob), value)], config)
        if isinstance(model, StepModel):
            steps[value] = simulated_step_us(model, range(len(model.measured.step_us)), {}) / model.samples_ratio
    if not steps:
        return None
    good = [value for value, step in steps.items() if step <= min(steps.values()) * (1.0 + BEST_SHARE)]
    return min(good) if all(isinstance(value, int | float) for value in good) else good[0]


def _one_currency(suggestions: Sequence[Suggestion]) -> None:
    known = {each.fix: each.prediction.metric for each in suggestions if isinstance(each.prediction, Prediction)}
    others = {fix: metric for fix, metric in known.items() if metric not in TIME_METRICS}
    if others and len(others) < len(suggestions):
        fix, metric = next(iter(sorted(others.items())))
        message = f"{fix} is judged by {metric}, others by the time of a step: plan the two kinds apart"
        raise MixedCurrency(message)


class _Search:
    """Joint simulations of sets of suggestions, each made once; times are of as many samples as a step has now."""

    def __init__(self, run: Run, suggestions: Sequence[Suggestion], config: Mapping[str, Any]) -> None:
        self._run, self._suggestions, self._config = run, suggestions, config
        self._models: dict[frozenset[int], StepModel | None] = {}
        self._simulated: dict[frozenset[int], list[float]] = {}
        self._rows: list[list[int]] = []
        unchanged = self._model(())
        if unchanged is not None:
            steps = len(unchanged.measured.step_us)
            self._rows = [list(range(steps)), *draw_rows(steps, _DRAWS, ahead=1).tolist()]
        alone = {each: self._model((each,)) for each in range(len(suggestions))} if self._rows else {}
        self.known = [each for each, model in alone.items() if model is not None]
        self._is_replayed = any(model.is_replayed for model in alone.values() if model is not None)

    def changes(self, chosen: Chosen) -> tuple[Change, ...]:
        return tuple(change for each in chosen for change in self._suggestions[each].changes)

    def step_us(self, chosen: Chosen) -> float:
        return self._steps(chosen, 1)[0]

    def greedy(self, most: int) -> Chosen:
        chosen = self._first()[:most]
        while len(chosen) < most:
            found = self._next(chosen)
            if found is None:
                break
            chosen = (*chosen, found)
        return chosen

    def without_idle(self, chosen: Chosen) -> Chosen:
        """The chosen ones less those whose removal costs next to nothing, cheapest first."""
        while len(chosen) > 1:
            rest = {each: tuple(other for other in chosen if other != each) for each in chosen}
            losses = {each: self.step_us(left) - self.step_us(chosen) for each, left in rest.items() if self._model(left)}
            idlest = min(losses, key=lambda each: (losses[each], each), default=None)
            if idlest is None or losses[idlest] >= SMALLEST_LOSS_SHARE * self.step_us(()):
                break
            chosen = rest[idlest]
        return chosen

    def _first(self) -> Chosen:
        """The best single suggestion, or the best pair where it gains more than 2 % of the step beyond that."""
        single = self._next(())
        first: Chosen = () if single is None else (single,)
        if len(self.known) > MOST_PAIRED:
            return first
        pairs = [pair for pair in combinations(self.known, 2) if self._model(pair) is not None]
        best = min(pairs, key=lambda pair: (self.step_us(pair), pair), default=None)
        limit = self.step_us(first) - SMALLEST_GAIN_SHARE * self.step_us(())
        if best is None or self.step_us(best) >= limit or (first and first[0] in best):
            return first
        return tuple(sorted(best, key=lambda each: (self.step_us((each,)), each)))

    def _next(self, chosen: Chosen) -> int | None:
        now = np.array(self._steps(chosen))
        gains = {}
        for each in self.known:
            if each in chosen or self._model((*chosen, each)) is None:
                continue
            gain = now - np.array(self._steps((*chosen, each)))
            low = float(np.quantile(gain[1:], _LOW))
            if gain[0] >= SMALLEST_GAIN_SHARE * self.step_us(()) and low >= 0.0:
                gains[each] = low
        return max(gains, key=lambda each: (round(gains[each], 6), -self._effort(each), -each), default=None)

    def _effort(self, number: int) -> int:
        """Whether a suggestion asks for code, which comes after those that ask for a config alone where both gain as much."""
        return max((int(change.knob in _IN_CODE) for change in self._suggestions[number].changes), default=0)

    def _steps(self, chosen: Chosen, count: int | None = None) -> list[float]:
        """Mean step over all data, then over each draw; only the first `count` of these where that is enough."""
        key = frozenset(chosen)
        done = self._simulated.setdefault(key, [])
        model = self._model(chosen)
        if model is None:
            message = "a set of suggestions without a model was simulated"
            raise AssertionError(message)
        if self._is_replayed and not model.is_replayed:  # the same yardstick for all of them
            model = replace(model, is_replayed=True)
        found = simulated_steps_us(model, [(rows, {}) for rows in self._rows[len(done) : count]])
        done.extend(step / model.samples_ratio for step in found)
        return done

    def _model(self, chosen: Chosen) -> StepModel | None:
        key = frozenset(chosen)
        if key not in self._models:
            changes = self.changes(chosen)
            named = [change.knob for change in changes]
            made = edited(self._run, changes, self._config) if len(set(named)) == len(named) else None
            self._models[key] = made if isinstance(made, StepModel) else None
        return self._models[key]
