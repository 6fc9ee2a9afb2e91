"""time_to_loss(...): how long the way to the same loss takes with another batch, from noise scale and step time together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Final

from perfnb.prediction import Prediction, Unknown
from perfnb.training.noise_scale import NoiseScale

METRIC: Final = "time_to_loss_s"

_ADAM_LIKE: Final = ("adam", "adamw", "nadam", "radam", "adamax", "lamb", "lion", "adafactor", "rmsprop", "adagrad")
_SGD_LIKE: Final = ("sgd", "momentum", "lars")
_CRITICAL: Final = (10.0, 4.0, 1.0)
"""B_simple over the critical batch: highest, middle, lowest. A prior of two tasks, on which it was 3.5 and 4.4."""


@dataclass(frozen=True, slots=True)
class TimeToLoss:
    """What another batch does to steps and time on the way to the same loss.

    Attributes
    ----------
    before, after
        Samples of a step.
    steps, steps_low, steps_high
        Steps with the new batch over steps with the present one.
    step_time
        Time of a step likewise; NaN where it is not known.
    prediction
        Seconds to the same loss, or why they are not known.
    """

    before: float
    after: float
    steps: float
    steps_low: float
    steps_high: float
    step_time: float
    prediction: Prediction | Unknown

    @property
    def sentence(self) -> str:
        """It in words."""
        steps = f"{self.steps:.2f} times the steps ({self.steps_low:.2f} to {self.steps_high:.2f})"
        if isinstance(self.prediction, Unknown):
            return f"{self.after:g} samples for {self.before:g}: {steps}; the time is not known: {self.prediction.reason}"
        times = [each / self.prediction.before for each in (self.prediction.after, self.prediction.low, self.prediction.high)]
        return (
            f"{self.after:g} samples for {self.before:g}: {steps}, {times[0]:.2f} times the time to the same loss "
            f"({times[1]:.2f} to {times[2]:.2f})"
        )


def steps_ratio(critical: float, before: float, after: float) -> float:
    """Steps to one loss with a batch over those with another: (1 + N/B')/(1 + N/B), N the critical batch.

    McCandlish et al. (2018), section 2.3, with S_min steps at an infinite batch.

    Examples
    --------
    >>> steps_ratio(100.0, 50.0, 50.0), steps_ratio(0.0, 50.0, 100.0), round(steps_ratio(1e12, 50.0, 100.0), 6)
    (1.0, 1.0, 0.5)
    """
    return (1.0 + critical / after) / (1.0 + critical / before)


def time_to_loss(
    noise_scale: NoiseScale | Unknown,
    before: float,
    after: float,
    step_prediction: Prediction | Unknown,
    *,
    left_s: float | None = None,
) -> TimeToLoss | Unknown:
    """Steps and time to the same loss with another batch size.

    The critical batch is B_simple/4, between B_simple/10 and B_simple: a prior of two tasks. The learning rate has to go along:
    see `rate_factor`.

    Parameters
    ----------
    noise_scale
        Of `gradient_noise_scale`.
    before, after
        Samples of a step, of all ranks, now and then.
    step_prediction
        `perfnb.predict(run, [Change("batch_size", ...)])`, of the metric step_us or sample_us; an Unknown stays one.
    left_s
        Seconds that the way there takes now; one where it is not known, so that the prediction is a ratio.

    Returns
    -------
    TimeToLoss or Unknown
        Unknown where the noise scale is, or a batch is no number above zero.
    """
    if isinstance(noise_scale, Unknown):
        return noise_scale
    if not all(math.isfinite(each) and each > 0.0 for each in (before, after)):
        return Unknown(f"batches of {before:g} and {after:g} samples", "two numbers of samples above zero")
    criticals = (noise_scale.low / _CRITICAL[0], noise_scale.value / _CRITICAL[1], noise_scale.high / _CRITICAL[2])
    ratios = [steps_ratio(each, before, after) for each in criticals]
    low, high = min(ratios), max(ratios)
    if isinstance(step_prediction, Unknown):
        return TimeToLoss(before, after, ratios[1], low, high, math.nan, step_prediction)
    per_step = _step_ratios(step_prediction, before, after)
    if isinstance(per_step, Unknown):
        return TimeToLoss(before, after, ratios[1], low, high, math.nan, per_step)
    corners = [steps * each for steps, each in product((low, high), per_step[1:])]
    whole = 1.0 if left_s is None else left_s
    middle = ratios[1] * per_step[0]
    prediction = Prediction(
        metric=METRIC,
        before=whole,
        after=whole * middle,
        low=whole * min(*corners, middle),
        high=whole * max(*corners, middle),
        basis="prior",
        assumptions=(
            "the critical batch is a quarter of the noise scale, between a tenth and all of it: a prior of two tasks",
            "the learning rate goes along with the batch",
            "the noise scale stays as it is: along three runs it moved 8, 12 and 111 times",
            *step_prediction.assumptions,
        ),
        model="noise_scale 1" + (f" + {step_prediction.model}" if step_prediction.model else ""),
        spread=max(math.log(max(*corners, middle) / min(*corners, middle)) / 2.0, 0.0),
    )
    return TimeToLoss(before, after, ratios[1], low, high, per_step[0], prediction)


def rate_factor(optimizer: str, before: float, after: float) -> float | None:
    """Factor of the learning rate that goes with another batch; None for an optimizer without a known rule.

    The square root of the ratio for Adam-like optimizers (Malladi et al. 2022), the ratio for SGD below the critical batch
    (Goyal et al. 2017). To be probed at the new batch.

    Examples
    --------
    >>> rate_factor("AdamW", 64, 256), rate_factor("SGD", 64, 256), rate_factor("mine", 64, 256)
    (2.0, 4.0, None)
    """
    name = optimizer.lower()
    if name in _ADAM_LIKE:
        return math.sqrt(after / before)
    return after / before if name in _SGD_LIKE else None


def _step_ratios(told: Prediction, before: float, after: float) -> tuple[float, float, float] | Unknown:
    """Time of a step after over before: middle, low and high."""
    times = {"step_us": 1.0, "sample_us": after / before}.get(told.metric)
    if times is None or not told.before > 0.0:
        return Unknown(f"the prediction is of {told.metric}, which says nothing of a step's time", "one of step_us or sample_us")
    return times * told.after / told.before, times * told.low / told.before, times * told.high / told.before
