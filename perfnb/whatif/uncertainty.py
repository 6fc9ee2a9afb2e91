"""How far a prediction may be off: spread over resamples, model errors, and the track record of earlier predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfnb.bootstrap import INTERVAL, block_length, resamples

SMALLEST_SPREAD: Final = 0.01
FEWEST_PAIRS: Final = 10
FEWEST_WORKLOADS: Final = 3
FEWEST_PAIRS_TO_MOVE: Final = 30
MOST_PAIRS_OF_A_JOB: Final = 5  # one job's pairs on one number of machines are not independent
_SMALLEST_LOADER_BLOCK: Final = 8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A quantity that a run does not tell exactly: what it is taken to be, and its 80 % interval.

    Examples
    --------
    >>> Estimate.exactly(2.0).is_exact
    True
    """

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Estimate:
        """An estimate without doubt."""
        return cls(value, value, value)

    @property
    def is_exact(self) -> bool:
        """Whether low and high are the value."""
        return self.low == self.value == self.high


class Interval(NamedTuple):
    """A predicted value with its 80 % interval, and what the interval rests on."""

    after: float
    low: float
    high: float
    basis: str


def draw_rows(count: int, draws: int, *, ahead: int = 0, seed: int = 0) -> NDArray[np.intp]:
    """Rows of each bootstrap draw over steps; draw b is the same for every candidate change (common random numbers).

    Parameters
    ----------
    count, draws
        Steps of the run, and draws wanted.
    ahead
        Batches that the loader makes ahead (workers x prefetch): blocks are at least twice as long, for bursts matter.
    seed
        Seed of the draws.

    Returns
    -------
    numpy.ndarray
        Shape (draws, count).
    """
    block = max(2 * ahead, _SMALLEST_LOADER_BLOCK) if ahead else 1
    block = min(max(block, block_length(count)), max(count // 3, 1))
    return resamples(count, draws, block=block, seed=seed)


def draws_half_width(values: Sequence[float]) -> float:
    """Half of the distance of the 10th and 90th percentile of the logarithms.

    Examples
    --------
    >>> round(draws_half_width([90.0, 100.0, 110.0]), 4)
    0.0803
    """
    if not values:
        return 0.0
    low, high = np.quantile(np.log(values), INTERVAL)
    return float(high - low) / 2.0


def spread(*half_widths: float) -> float:
    """80 % half-width of log(actual / after): the independent half-widths in quadrature, at least .01.

    Examples
    --------
    >>> spread(0.03, 0.04)
    0.05
    """
    return max(math.hypot(*half_widths), SMALLEST_SPREAD)


@dataclass(frozen=True, slots=True)
class Pair:
    """One earlier prediction and what was measured then.

    Attributes
    ----------
    model, knob
        What was simulated, and what was changed.
    workload, machines
        Which job, on how many machines.
    ratio
        log(actual / after) / spread, both as the models gave them.
    is_own
        Whether the user's own ledger holds it, not the one that perfnb ships.
    """

    model: str
    knob: str
    workload: str
    machines: int
    ratio: float
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Calibration:
    """Earlier predictions with their outcomes; turns a spread into an interval that held for 80 % of them.

    Split-conformal prediction (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; each side apart as in
    Romano, Patterson, Candes, Conformalized Quantile Regression, 2019): of n earlier pairs and the coming one, exchangeable, the
    coming ratio exceeds the ceil(.9 (n + 1))-th smallest in at most a tenth of cases, and falls below the
    floor(.1 (n + 1))-th in at most a tenth.

    Examples
    --------
    >>> Calibration().interval(100.0, 0.1, 0.1, model="loader_queue", knob="num_workers").basis
    'prior'
    """

    pairs: tuple[Pair, ...] = ()

    def interval(self, after: float, down: float, up: float, *, model: str, knob: str) -> Interval:
        """Interval from earlier pairs, each side apart, so that a bias shows; the prior interval while there are too few.

        From 30 pairs on the value itself moves by their median too. The half-widths below and above enter the calibrated
        interval by their mean, for that is what the ratios of earlier pairs were divided by.

        Parameters
        ----------
        after
            The predicted value.
        down, up
            Prior 80 % half-widths of log(actual / after) below and above.
        model, knob
            Pairs of both are used, else of the model, else none.
        """
        same_model = [pair for pair in self.pairs if pair.model == model]
        for group, label in (([pair for pair in same_model if pair.knob == knob], knob), (same_model, "all knobs")):
            chosen = self._independent(group)
            workloads = len({pair.workload for pair in chosen})
            if len(chosen) >= FEWEST_PAIRS and workloads >= FEWEST_WORKLOADS:
                told = f"{workloads} workloads, {sum(pair.is_own for pair in chosen)} here; {model}, {label}"
                return _conformal(after, (down + up) / 2.0, sorted(pair.ratio for pair in chosen), told)
        return Interval(after, after * math.exp(-down), after * math.exp(up), "prior")

    @staticmethod
    def _independent(pairs: Iterable[Pair]) -> list[Pair]:
        seen: Counter[tuple[str, int]] = Counter()
        kept = []
        for pair in pairs:
            seen[pair.workload, pair.machines] += 1
            if seen[pair.workload, pair.machines] <= MOST_PAIRS_OF_A_JOB:
                kept.append(pair)
        return kept


def _conformal(after: float, width: float, ratios: list[float], told: str) -> Interval:
    count = len(ratios)
    highest = ratios[-(-9 * (count + 1) // 10) - 1]  # ceil(.9 (n + 1)), counted from 1; with 10 pairs the last
    lowest = ratios[(count + 1) // 10 - 1]
    low, high = after * math.exp(width * lowest), after * math.exp(width * highest)
    moved = after * math.exp(width * float(np.median(ratios))) if count >= FEWEST_PAIRS_TO_MOVE else after
    return Interval(moved, low, high, f"calibrated on {count} pairs ({told})")
