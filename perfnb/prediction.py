"""What a what-if model answers: a Prediction with its interval, or Unknown with what it would need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, Literal

from perfnb.text import byte_size

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
class MemoryPart:
    """Peak memory of a device after a change, beside a prediction of time.

    Attributes
    ----------
    what
        Which bytes: allocated, or reserved by torch's allocator.
    before_bytes, after_bytes
        Now, and as predicted.
    low_bytes, high_bytes
        80 % interval of what has to be there, a prior.
    usable_bytes
        Memory of the device less what others hold; None where it is not known.
    level
        How far to believe it: B (a replay, or measured peaks), C or D; the memory note's levels.
    basis
        What it was made from.
    assumptions
        What must hold, in sentences.
    """

    what: str
    before_bytes: int
    after_bytes: int
    low_bytes: int
    high_bytes: int
    usable_bytes: int | None
    level: str
    basis: str
    assumptions: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["does not fit", "may run out of memory", "may fit", "fits", "usable memory not known"]:
        """Whether it fits; "fits" is only said where a replay or measured peaks stand behind it."""
        if self.usable_bytes is None:
            return "usable memory not known"
        if self.low_bytes > self.usable_bytes:
            return "does not fit"
        if self.high_bytes > self.usable_bytes:
            return "may run out of memory"
        return "fits" if self.level in "AB" else "may fit"

    @property
    def words(self) -> str:
        """Both peaks with the interval, the level and the verdict, in a line.

        Examples
        --------
        >>> MemoryPart("allocated", 1 << 30, 2 << 30, 1 << 30, 3 << 30, 8 << 30, "D", "a bound").words
        'peak allocated 1.00 GiB -> 2.00 GiB (1.00 GiB to 3.00 GiB, level D, a prior) of 8.00 GiB usable: may fit'
        """
        before, after, low, high = map(byte_size, (self.before_bytes, self.after_bytes, self.low_bytes, self.high_bytes))
        usable = "" if self.usable_bytes is None else f" of {byte_size(self.usable_bytes)} usable"
        return f"peak {self.what} {before} -> {after} ({low} to {high}, level {self.level}, a prior){usable}: {self.verdict}"

    @property
    def is_at_risk(self) -> bool:
        """Whether the high end passes what is usable, so that no speed may be promised."""
        return self.usable_bytes is not None and self.high_bytes > self.usable_bytes


@dataclass(frozen=True, slots=True)
class Prediction:
    """A metric after a change, with its interval; made from the run alone, before the change is tried.

    Attributes
    ----------
    metric
        `step_us`: mean duration of the steady steps; `sample_us`: the same per sample of a rank.
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
    memory
        The peak memory with the same changes, where they touch it and something tells of it.
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
    memory: MemoryPart | None = None

    @property
    def speedup(self) -> float:
        """The metric before over the metric after: 1.3 means 1.3 times as fast."""
        return self.before / self.after

    @property
    def per(self) -> str:
        """What the metric is the time of: "step", "sample" or "epoch"."""
        return self.metric.removesuffix("_us")

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
