"""verify(suggestion, before, after): what a change really did, beside what was predicted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.bootstrap import INTERVAL, resamples
from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import NoStepsError
from perfnb.fix import Suggestion
from perfnb.ledger import steady_steps, step_ledger
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.work import rank_work

FEWEST_STEADY_STEPS: Final = 3
"""Fewer steady steps in either run make an outcome void."""

FEWEST_SCORED_STEPS: Final = 30
"""Fewer steady steps in either run keep an outcome out of the accuracy statistics."""

_DRAWS: Final = 500
_NOISE_SHARE: Final = 0.02  # a change of less than this has no sign that could be right or wrong


@dataclass(frozen=True, slots=True)
class Outcome:
    """A prediction beside what was measured after the change.

    Attributes
    ----------
    changes
        What was changed: as suggested, or for a bare prediction what differs between the configs of the runs.
    prediction
        What was predicted, or why nothing was.
    metric
        `step_us`, mean duration of the steady steps.
    before, after, after_low, after_high
        The metric as measured in the run before and in the run after, the latter with its 80 % bootstrap interval.
    steps_before, steps_after
        Number of steady steps.
    inside
        Whether the measured value lies in the predicted interval; None without a prediction, or where the outcome is void.
    sign_ok
        Whether it went the predicted way; None where it changed too little to say, without a prediction, or void.
    void
        Why the runs cannot be compared; empty where they can.
    caution
        Why the outcome counts little; empty where it counts fully.
    """

    changes: tuple[Change, ...]
    prediction: Prediction | Unknown
    metric: str
    before: float
    after: float
    after_low: float
    after_high: float
    steps_before: int
    steps_after: int
    inside: bool | None
    sign_ok: bool | None
    void: str
    caution: str

    @property
    def speedup(self) -> float:
        """Measured metric before over measured metric after."""
        return self.before / self.after

    @property
    def error_share(self) -> float | None:
        """Predicted over measured value, less one; None without a prediction."""
        return self.prediction.after / self.after - 1.0 if isinstance(self.prediction, Prediction) else None

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        measured = (
            f"measured {text.speedup(self.speedup)} "
            f"({text.speedup(self.before / self.after_high)} to {text.speedup(self.before / self.after_low)})"
        )
        if self.void:
            return f"void: {self.void}; {measured}"
        if not isinstance(self.prediction, Prediction):
            return f"no prediction was made ({self.prediction.reason}); {measured}"
        given = self.prediction
        predicted = (
            f"predicted {text.speedup(given.speedup)} "
            f"({text.speedup(given.before / given.high)} to {text.speedup(given.before / given.low)})"
        )
        return f"{predicted}, {measured}: {'inside' if self.inside else 'outside'} the interval"


def verify(suggestion: Suggestion | Prediction, before: Run, after: Run) -> Outcome:
    """What a change really did, beside what was predicted of it.

    Parameters
    ----------
    suggestion
        The suggestion that was applied, or its prediction.
    before
        The run that the prediction was made from.
    after
        A run of the same job with nothing else changed.

    Returns
    -------
    Outcome
        Void, with the reason, where the runs cannot be compared.

    Raises
    ------
    NoStepsError
        If either run has no step boundaries.

    Examples
    --------
    >>> import perfnb
    >>> run = perfnb.read_trace("data/samples/healthy")
    >>> prediction = Prediction("step_us", before=100.0, after=50.0, low=45.0, high=55.0, basis="prior")
    >>> perfnb.verify(prediction, run, run).inside
    False
    """
    changes = suggestion.changes if isinstance(suggestion, Suggestion) else _differences(before, after)
    prediction = suggestion.prediction if isinstance(suggestion, Suggestion) else suggestion
    before_us, after_us = step_durations(before), step_durations(after)
    low, high = np.quantile(after_us[resamples(len(after_us), _DRAWS)].mean(axis=1), INTERVAL)
    void = _void(changes, before, after, len(before_us), len(after_us))
    actual = float(after_us.mean())
    judged = isinstance(prediction, Prediction) and not void
    return Outcome(
        changes=changes,
        prediction=prediction,
        metric="step_us",
        before=float(before_us.mean()),
        after=actual,
        after_low=float(low),
        after_high=float(high),
        steps_before=len(before_us),
        steps_after=len(after_us),
        inside=prediction.low <= actual <= prediction.high if judged and isinstance(prediction, Prediction) else None,
        sign_ok=_sign_ok(prediction, float(before_us.mean()), actual, float(high - low) / 2) if judged else None,
        void=void,
        caution="; ".join(_cautions(before, after, len(before_us), len(after_us))),
    )


def step_durations(run: Run) -> NDArray[np.float64]:
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


def _void(changes: tuple[Change, ...], before: Run, after: Run, steps_before: int, steps_after: int) -> str:
    if min(steps_before, steps_after) < FEWEST_STEADY_STEPS:
        return f"{steps_before} steady steps before and {steps_after} after, at least {FEWEST_STEADY_STEPS} are needed"
    if len(before.ranks) != len(after.ranks):
        return f"{len(before.ranks)} ranks before, {len(after.ranks)} after"
    if before.machine.devices != after.machine.devices:
        return f"another machine: {before.machine.devices or 'no device'} before, {after.machine.devices or 'no device'} after"
    if not before.config or not after.config:
        return ""
    for change in changes:
        found = value_of(after.config, change.knob) if has_knob(after.config, change.knob) else change.after
        if found != change.after:
            return f"{change.knob} is {found!r} after, not {change.after!r}: the change was not applied"
    other = {change.knob for change in _differences(before, after)} - {change.knob for change in changes}
    return f"the configs also differ in {', '.join(sorted(other))}" if other else ""


def _differences(before: Run, after: Run) -> tuple[Change, ...]:
    """Top-level values in which the configs of two runs differ; none where either is not known."""
    if not before.config or not after.config:
        return ()
    keys = dict.fromkeys((*before.config, *after.config))
    pairs = {str(key): (before.config.get(key), after.config.get(key)) for key in keys}
    return tuple(Change(knob, old, new) for knob, (old, new) in pairs.items() if old != new)


def _cautions(before: Run, after: Run, steps_before: int, steps_after: int) -> list[str]:
    fewest = min(steps_before, steps_after)
    few = f"only {fewest} steady steps, outcomes are scored from {FEWEST_SCORED_STEPS} on"
    unknown = "the configs of the runs are not known, so other differences cannot be ruled out"
    return ([few] if fewest < FEWEST_SCORED_STEPS else []) + ([] if before.config and after.config else [unknown])


def _sign_ok(prediction: Prediction | Unknown, before: float, actual: float, noise: float) -> bool | None:
    if not isinstance(prediction, Prediction) or abs(actual - before) <= max(_NOISE_SHARE * before, noise):
        return None
    return (prediction.after < prediction.before) == (actual < before)


def outcome_frame(outcome: Outcome) -> pd.DataFrame:
    """Table of an outcome.

    Returns
    -------
    pandas.DataFrame
        Two rows, `predicted` and `measured`, with before_us, after_us, low_us, high_us, speedup.
    """
    given = outcome.prediction if isinstance(outcome.prediction, Prediction) else None
    nothing = float("nan")
    return pd.DataFrame(
        [
            ("predicted", *((given.before, given.after, given.low, given.high, given.speedup) if given else (nothing,) * 5)),
            ("measured", outcome.before, outcome.after, outcome.after_low, outcome.after_high, outcome.speedup),
        ],
        columns=["what", "before_us", "after_us", "low_us", "high_us", "speedup"],
    )
