"""verify(prediction, before, after): what a change really did, beside what was predicted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.bootstrap import INTERVAL
from perfnb.errors import NoStepsError
from perfnb.fix import Suggestion
from perfnb.outcomes.comparable import cautions, differences, pressure, why_void
from perfnb.outcomes.step_means import drawn_means, step_durations
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.whatif.step_model import samples_per_step

__all__ = ["FEWEST_SCORED_STEPS", "FEWEST_STEADY_STEPS", "Outcome", "outcome_frame", "step_durations", "verify"]

Floats = NDArray[np.float64]
Config = Mapping[str, Any]

FEWEST_STEADY_STEPS: Final = 3
"""Fewer steady steps in any run make an outcome void."""

FEWEST_SCORED_STEPS: Final = 30
"""Fewer steady steps before or after keep an outcome out of the accuracy statistics."""

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
    before, after
        The metric as measured in the runs before and after.
    after_low, after_high
        80 % bootstrap interval of the latter.
    speedup_low, speedup_high
        80 % bootstrap interval of `speedup`, in which both sides vary.
    steps_before, steps_after
        Number of steady steps.
    paired
        Whether the runs were interleaved, before and after in turn, so that what drifts on the machine meets both alike.
    pressure_before, pressure_after
        Share of time in which some task of the host waited for a core; None where not known.
    inside
        Whether the measured value lies in the predicted interval; None without a prediction, or where the outcome is void.
    sign_ok
        Whether it went the predicted way; None where it changed by less than 2 % or the noise, without a prediction, or void.
    void
        Why the runs cannot be compared; empty where they can.
    caution
        Why the outcome stays out of the accuracy statistics though the runs can be compared; empty where it counts.
    """

    changes: tuple[Change, ...]
    prediction: Prediction | Unknown
    metric: str
    before: float
    after: float
    after_low: float
    after_high: float
    speedup_low: float
    speedup_high: float
    steps_before: int
    steps_after: int
    paired: bool
    pressure_before: float | None
    pressure_after: float | None
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
    def unscored(self) -> str:
        """Why the outcome stays out of the accuracy statistics; empty where it counts."""
        return self.void or self.caution

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        low, high = text.speedup(self.speedup_low), text.speedup(self.speedup_high)
        measured = f"measured {text.speedup(self.speedup)} ({low} to {high})"
        if self.void:
            return f"void: {self.void}; {measured}"
        if not isinstance(self.prediction, Prediction):
            return f"no prediction was made ({self.prediction.reason}); {measured}"
        given = self.prediction
        predicted = (
            f"predicted {text.speedup(given.speedup)} "
            f"({text.speedup(given.before / given.high)} to {text.speedup(given.before / given.low)})"
        )
        overlaps = self.after_low <= given.high and given.low <= self.after_high
        where = "inside" if self.inside else "outside"
        noise = "" if self.inside or not overlaps else ", by less than the noise of the measurement"
        return f"{predicted}, {measured}: {where} the interval{noise}"


def verify(
    prediction: Suggestion | Prediction | Unknown,
    before: Run | Sequence[Run],
    after: Run | Sequence[Run],
    *,
    configs: tuple[Config, Config] | None = None,
    paired: bool = False,
) -> Outcome:
    """What a change really did, beside what was predicted of it.

    Both sides are resampled in blocks of neighbouring steps; where a side has several runs, runs are drawn too, so that what
    differs from run to run is in the interval (with two or three runs that is told roughly).

    Parameters
    ----------
    prediction
        The suggestion that was applied, its prediction, or the refusal to make one.
    before
        The run that the prediction was made from, or several of that job.
    after
        A run of the same job with nothing else changed, or several.
    configs
        Config before and after; the runs' own by default. Traces hold none: then nothing tells whether more was changed.
    paired
        Whether runs were interleaved, before, after, before, after, and are given in that order: the same draw of runs then
        serves both sides.

    Returns
    -------
    Outcome
        Void, with the reason, where the runs cannot be compared.

    Raises
    ------
    NoStepsError
        If a run has no step boundaries, or no run is given.

    Examples
    --------
    >>> import perfnb
    >>> run = perfnb.read_trace("data/samples/healthy")
    >>> prediction = Prediction("step_us", before=100.0, after=50.0, low=45.0, high=55.0, basis="prior")
    >>> perfnb.verify(prediction, run, run).inside
    False
    """
    sides = [_runs(before), _runs(after)]
    told = configs or (sides[0][0].config, sides[1][0].config)
    changes = prediction.changes if isinstance(prediction, Suggestion) else differences(*told)
    given = prediction.prediction if isinstance(prediction, Suggestion) else prediction
    metric = given.metric if isinstance(given, Prediction) else "step_us"
    durations = [[_durations(run, config, metric) for run in runs] for runs, config in zip(sides, told, strict=True)]
    paired = paired and len(sides[0]) == len(sides[1])
    drawn = [drawn_means(each, seed=2 * side, runs_seed=0 if paired else side) for side, each in enumerate(durations)]
    now, actual = (float(np.mean([each.mean() for each in side])) for side in durations)
    low, high = (float(end) for end in np.quantile(drawn[1], INTERVAL))
    speedup = np.quantile(drawn[0] / drawn[1], INTERVAL)
    counts = [sum(map(len, each)) for each in durations]
    void = _void(changes, sides, durations, told, given_configs=configs is not None)
    known = given if isinstance(given, Prediction) and not void else None
    noise = float(speedup[1] - speedup[0]) / 2.0 * actual
    pressures = [_largest([pressure(run) for run in runs]) for runs in sides]
    return Outcome(
        changes=changes,
        prediction=given,
        metric=metric,
        before=now,
        after=actual,
        after_low=low,
        after_high=high,
        speedup_low=float(speedup[0]),
        speedup_high=float(speedup[1]),
        steps_before=counts[0],
        steps_after=counts[1],
        paired=paired,
        pressure_before=pressures[0],
        pressure_after=pressures[1],
        inside=None if known is None else known.low <= actual <= known.high,
        sign_ok=None if known is None else _sign_ok(known, now, actual, noise),
        void=void,
        caution="; ".join(_cautions(sides, counts, told)),
    )


def _durations(run: Run, config: Config, metric: str) -> Floats:
    """Duration of each steady step, or of each of its samples where that was predicted.

    Raises
    ------
    NoStepsError
        If how many samples a step has is not known.
    """
    steps = step_durations(run)
    if metric != "sample_us":
        return steps
    samples = samples_per_step(run, config)
    if isinstance(samples, Unknown):
        message = f"the prediction is per sample, and how many samples a step has is not known: give {samples.needs}"
        raise NoStepsError(message)
    return steps / samples


def _runs(given: Run | Sequence[Run]) -> tuple[Run, ...]:
    runs = (given,) if isinstance(given, Run) else tuple(given)
    if not runs:
        message = "no run is given: verify compares runs before a change with runs after it"
        raise NoStepsError(message)
    return runs


def _void(
    changes: tuple[Change, ...],
    sides: Sequence[tuple[Run, ...]],
    durations: Sequence[Sequence[Floats]],
    configs: tuple[Config, Config],
    *,
    given_configs: bool,
) -> str:
    fewest = [min(map(len, each)) for each in durations]
    if min(fewest) < FEWEST_STEADY_STEPS:
        return f"{fewest[0]} steady steps before and {fewest[1]} after, at least {FEWEST_STEADY_STEPS} are needed"
    first = sides[0][0]
    for run in sides[1]:
        found = why_void(changes, first, run, configs if given_configs else (configs[0], run.config))
        if found:
            return found
    for run in sides[0][1:]:
        found = why_void((), first, run, ({}, {}) if given_configs else (configs[0], run.config))
        if found:
            return f"the runs before differ: {found}"
    return ""


def _cautions(sides: Sequence[tuple[Run, ...]], counts: Sequence[int], configs: tuple[Config, Config]) -> list[str]:
    fewest = min(counts)
    said = (
        [f"only {fewest} steady steps, outcomes are scored from {FEWEST_SCORED_STEPS} on"] if fewest < FEWEST_SCORED_STEPS else []
    )
    if not all(configs):
        said.append("the configs of the runs are not known, so other differences cannot be ruled out")
    for runs, when in zip(sides, ("before", "after"), strict=True):
        said += dict.fromkeys(caution for run in runs for caution in cautions(run, when))
    return said


def _sign_ok(prediction: Prediction, before: float, actual: float, noise: float) -> bool | None:
    if abs(actual - before) <= max(_NOISE_SHARE * before, noise):
        return None
    return bool(np.sign(prediction.after - prediction.before) == np.sign(actual - before))


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


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
