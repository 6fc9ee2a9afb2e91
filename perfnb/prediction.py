"""What a what-if model answers: a Prediction with its interval, or Unknown with what it would need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Literal

Z_OF_80_PERCENT: Final = NormalDist().inv_cdf(0.9)
"""Half-width of an 80 % interval in standard deviations."""

SMALLEST_GAIN_SHARE: Final = 0.03
"""Below this a change counts as having no effect (whatif contract: steps of real runs vary by as much)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One knob of a config, its value now and its value after.

    Examples
    --------
    >>> str(Change("num_workers", 0, 4))
    'num_workers: 0 -> 4'
    """

    knob: str
    before: Any
    after: Any

    @property
    def inverse(self) -> Change:
        """The change that takes this one back."""
        return Change(self.knob, self.after, self.before)

    def __str__(self) -> str:
        """Knob, value before and value after."""
        return f"{self.knob}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A metric after a change, with its interval; made from the run alone, before the change is tried.

    Attributes
    ----------
    metric
        `step_us`: mean duration of the steady steps.
    before
        The metric as measured.
    after, low, high
        The metric as predicted; 80 % of the actual values are expected in [low, high].
    basis
        "prior" (no track record yet) or "calibrated on n pairs".
    assumptions
        What must hold for the prediction to hold, in sentences.
    model
        Names and versions of the models that were simulated.
    spread
        80 % half-width of log(actual / after), before any track record.
    simulated
        What the models gave, where a track record moved `after`; None where they are the same.
    """

    metric: str
    before: float
    after: float
    low: float
    high: float
    basis: str
    assumptions: tuple[str, ...] = ()
    model: str = ""
    spread: float = 0.0
    simulated: float | None = None

    @property
    def speedup(self) -> float:
        """The metric before over the metric after: 1.3 means 1.3 times as fast."""
        return self.before / self.after

    @property
    def gain_share(self) -> float:
        """Share of the metric that goes away; negative where the change makes it slower."""
        return 1.0 - self.after / self.before

    @property
    def verdict(self) -> Literal["faster", "slower", "no effect expected"]:
        """What to expect in a word; no effect where the gain is small or the interval holds the present value."""
        is_small = abs(self.gain_share) < SMALLEST_GAIN_SHARE and self.low <= self.after <= self.high
        if is_small or self.low <= self.before <= self.high:
            return "no effect expected"
        return "faster" if self.high < self.before else "slower"

    def chance_of(self, gain_share: float = SMALLEST_GAIN_SHARE) -> float:
        """Probability that the metric falls by at least this share, from the interval itself.

        A normal distribution of the logarithm, with one width below `after` and one above, set by `low` and `high`.

        Examples
        --------
        >>> round(Prediction("step_us", 100, 80, 72, 90, "prior").chance_of(0.1), 2)
        0.9
        """
        # a track record of one-sided errors may leave `after` outside of its own interval
        middle = self.after if self.low <= self.after <= self.high else math.sqrt(self.low * self.high)
        distance = math.log((1.0 - gain_share) * self.before / middle)
        edge = self.high if distance > 0 else self.low
        width = abs(math.log(edge / middle)) / Z_OF_80_PERCENT
        if width == 0.0:
            return float(distance >= 0)
        return NormalDist().cdf(distance / width)


@dataclass(frozen=True, slots=True)
class Unknown:
    """No prediction, and why. Falsy; it never holds a number.

    Attributes
    ----------
    reason
        What is wrong and what is there.
    needs
        What would answer the question: a table, a probe, a longer run.
    """

    reason: str
    needs: str

    def __bool__(self) -> bool:
        """Always False, so that `if prediction:` asks whether there is one."""
        return False
