"""How far counts of comparable curves carry: observed confidence, from calibration.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

FILE: Final = "calibration.json"
"""Beside this module: counts, weights and where they come from, made by benchmarks/training/fit_calibration.py."""

HIGHEST_OBSERVED: Final = 0.70
"""No confidence from a curve alone passes it: one curve does not tell what another one would have been (a choice)."""

HIGHEST_WITHOUT_PLAN: Final = 0.70
"""The same where the length of the run is not known, probed or not."""

_CAPS: Final = ((0.10, 0.90), (0.05, 0.80))  # share of the run that was probed, and its cap: choices of training.md 4
_LOWER: Final = 0.1
_HALVINGS: Final = 60


@dataclass(frozen=True, slots=True)
class CurveRecord:
    """Comparable curves on which a detector fired: in how many what it says was so.

    Attributes
    ----------
    hits, misses
        Fires after which it was so, and not.
    claim
        What was so, in words.
    population
        Which curves were counted.
    """

    hits: int
    misses: int
    claim: str
    population: str

    @property
    def confidence(self) -> float:
        """Lower end that counts as few as these allow, at most `HIGHEST_OBSERVED`."""
        return min(lower_bound(self.hits, self.misses), HIGHEST_OBSERVED)

    @property
    def words(self) -> str:
        """The counts as a sentence without its full stop."""
        return f"in {self.hits} of {self.hits + self.misses} comparable curves {self.claim}"


def lower_bound(hits: int, misses: int, tail: float = _LOWER) -> float:
    """Lower 10 % bound of Beta(1 + hits, 1 + misses): what a uniform prior and the counts leave likely.

    For whole numbers the Beta distribution is a sum of binomial terms (Abramowitz and Stegun 26.5.24), halved to its root.

    Examples
    --------
    >>> round(lower_bound(4, 0), 2), round(lower_bound(11, 15), 2), round(lower_bound(5, 7), 2)
    (0.63, 0.31, 0.26)
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _beta_share(middle, hits, misses) < tail else (low, middle)
    return 0.5 * (low + high)


def record_of(detector: str) -> CurveRecord | None:
    """Counts of a detector; None where none were made.

    Examples
    --------
    >>> record_of("missing_decay") is None
    True
    """
    told = calibration()["counts"].get(detector)
    return None if told is None else CurveRecord(int(told["hits"]), int(told["misses"]), told["claim"], told["population"])


def chance_of_better(effect: float) -> float:
    """Probability that a branch's rate ends over 1 % of the attainable drop better, from the effect of a paired probe.

    Platt's line on the signed root of the effect, so that it rises with the effect; before any cap, and only of learning rates
    inside the factors 0.1 to 10 that it was fitted on.

    Parameters
    ----------
    effect
        Loss of the base less that of the branch over the probe's last fifth, as a share of the drop so far: -1 to 1.

    Examples
    --------
    >>> chance_of_better(-1.0) < 0.01 < chance_of_better(0.0) < 0.5 < chance_of_better(0.1) < chance_of_better(0.5)
    True
    """
    line = calibration()["probe"]
    feature = math.copysign(math.sqrt(abs(effect)), effect)
    return 1.0 / (1.0 + math.exp(-(line["slope"] * feature + line["intercept"])))


def gain_of(chance: float) -> tuple[float, float, float]:
    """Gain that pairs of such a probability had: low, median and high of 80 %, as a share of the attainable drop.

    Examples
    --------
    >>> low, median, high = gain_of(0.85)
    >>> low < median < high
    True
    """
    bands = calibration()["probe"]["gain_bands"]
    band = next((each for each in bands if each["from"] <= chance < each["to"]), bands[-1])
    low, median, high = (float(each) for each in band["gain"])
    return low, median, high


def highest_probed(share_of_run: float | None) -> float:
    """Highest probability that a probe of so much of the run may state; the share is unknown where the run's length is.

    Examples
    --------
    >>> highest_probed(0.01), highest_probed(0.07), highest_probed(0.1), highest_probed(None)
    (0.7, 0.8, 0.9, 0.7)
    """
    if share_of_run is None:
        return HIGHEST_WITHOUT_PLAN
    return next((cap for share, cap in _CAPS if share_of_run >= share), HIGHEST_OBSERVED)


@cache
def calibration() -> Mapping[str, Any]:
    """The shipped calibration: counts per detector, weights of the score, the probe's two numbers, and their provenance."""
    told: dict[str, Any] = json.loads(files("perfnb.training").joinpath(FILE).read_text(encoding="utf-8"))
    return told


@cache
def rate_prior() -> Mapping[str, Any]:
    """Learning rates that were best on other problems, by kind of optimizer, and where they come from."""
    told: dict[str, Any] = json.loads(files("perfnb.training").joinpath("learning_rate_prior.json").read_text(encoding="utf-8"))
    return told


def _beta_share(at: float, hits: int, misses: int) -> float:
    """Probability that Beta(1 + hits, 1 + misses) stays below: that of more than `hits` successes in `hits + misses + 1`."""
    count = hits + misses + 1
    whole = math.lgamma(count + 1)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * math.log(at) + (count - k) * math.log1p(-at)
        for k in range(hits + 1, count + 1)
    )
    return math.fsum(math.exp(term) for term in terms)
