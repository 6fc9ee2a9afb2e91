"""Gradient noise scale: at which batch size more samples stop paying in steps, from the gradients of micro-batches or ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from perfnb.bootstrap import resamples
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.training.curve import whole_number
from perfnb.training.statistics import Floats

BAND: Final = 10.0
"""Nothing is said of a batch within this factor of the noise scale: it exceeded the tuned critical batch 3.5 and 4.4 times."""

WINDOWS: Final = 3
"""Windows in a row that have to agree before a batch is called too small or too large."""

COLUMNS: Final = ("batch_size", "micro_batches", "micro_gradient_square", "gradient_square")
"""Columns of the table `training` that it is taken from."""

_FEWEST: Final = 8
_SHARE_OF_RUN: Final = 0.01
_MANY: Final = 8  # gradients of parts behind a mean from which fewer samples suffice
_SAMPLES: Final = (20.0, 10.0)  # samples over the noise scale: of fewer parts, of many
_WIDEST: Final = 4.0
_INTERVAL: Final = (0.1, 0.9)
_AT_A_LOOK: Final = (0.01, 0.99)  # the 20 % outside of the interval, spread over the ten lengths that are tried from 8 steps on
_DRAWS: Final = 500

Side = Literal["clearly too small", "clearly too large", "within the band"]


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """Gradient noise scale of some steps.

    Attributes
    ----------
    value, low, high
        Samples, with the 80 % interval of a bootstrap over steps.
    batch
        Samples of a step, all micro-batches and ranks; the median.
    steps
        Steps that it was taken from.
    """

    value: float
    low: float
    high: float
    batch: float
    steps: int

    @property
    def side(self) -> Side:
        """What may be said of the batch: only where the whole interval is outside a factor 10.

        Examples
        --------
        >>> NoiseScale(2_000, 1_500, 2_500, batch=64, steps=90).side
        'clearly too small'
        """
        if self.low > BAND * self.batch:
            return "clearly too small"
        return "clearly too large" if self.high < self.batch / BAND else "within the band"

    @property
    def sentence(self) -> str:
        """It in words."""
        return (
            f"The batch of {self.batch:.4g} samples is {self.side}: the gradient noise scale is {self.value:.3g} ({self.low:.3g} "
            f"to {self.high:.3g}) over {self.steps} steps; not validated under Adam or batch norm"
        )


def noise_and_signal(batch: Floats, parts: Floats, micro: Floats, whole: Floats) -> tuple[Floats, Floats]:
    """Noise and squared gradient of each step, without bias but far from certain one by one.

    McCandlish et al. (2018), appendix A.1: for micro-batches of b samples in batches of B,
    S = (mean |g_b|^2 - |g_B|^2)/(1/b - 1/B) and G2 = (B |g_B|^2 - b mean |g_b|^2)/(B - b).

    Parameters
    ----------
    batch, parts
        Samples of a step (B) and its micro-batches (B/b).
    micro
        Mean over micro-batches or ranks of the squared norm of their gradient.
    whole
        Squared norm of the mean gradient.

    Examples
    --------
    >>> noise, signal = noise_and_signal(*(np.array([each]) for each in (64.0, 8.0, 1.0 + 100 / 8, 1.0 + 100 / 64)))
    >>> noise.round(6).tolist(), signal.round(6).tolist()
    ([100.0], [1.0])
    """
    part = batch / parts
    noise: Floats = (micro - whole) / (1.0 / part - 1.0 / batch)
    signal: Floats = (batch * whole - part * micro) / (batch - part)
    return noise, signal


def noise_scale_of(steps: Floats) -> NoiseScale | Unknown:
    """Noise scale of some steps: the mean of their noise over the mean of their squared gradients.

    The two are meant apart: of single steps the squared gradient is below zero in up to 43 % at 32 samples.

    Parameters
    ----------
    steps
        A row per step: number, batch, micro-batches, mean square of the parts, square of the whole, parts behind that mean; see
        `known_steps`.

    Returns
    -------
    NoiseScale or Unknown
        Unknown where the steps allow none: their samples have to be 10 times the scale where the gradients of 8 parts or more are
        meant, 20 times with fewer, and its interval within a factor 4. That one is of 98 %: more and more steps are tried until
        it is told, and with the 80 % that are reported the rule would stop where chance made the scale small.
    """
    if len(steps) < _FEWEST:
        return Unknown(f"{len(steps)} steps hold the squares of micro-batch gradients", f"{_FEWEST} steps or more")
    _, batch, parts, micro, whole, seen = steps.T
    noise, signal = noise_and_signal(batch, parts, micro, whole)
    rows = resamples(len(steps), _DRAWS)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = noise[rows].mean(axis=1) / signal[rows].mean(axis=1)
        middle = float(noise.mean() / signal.mean())
    if not (middle > 0.0 and (drawn > 0.0).all() and np.isfinite(drawn).all()):
        return Unknown(f"the gradient of {len(steps)} steps is not told from its noise", "more steps, or more micro-batches")
    lowest, low, high, highest = (float(end) for end in np.quantile(drawn, sorted((*_INTERVAL, *_AT_A_LOOK))))
    times = _SAMPLES[int(np.median(seen) >= _MANY)]
    if batch.sum() < times * middle:
        reason = f"{batch.sum():.4g} samples are {batch.sum() / middle:.2g} times the scale that they would give ({middle:.3g})"
        return Unknown(reason, f"{times:g} times as many as the scale")
    if highest >= _WIDEST * lowest:
        return Unknown(f"it lies between {lowest:.3g} and {highest:.3g}, which is too wide to say anything", "more steps")
    return NoiseScale(middle, low, high, float(np.median(batch)), len(steps))


def gradient_noise_scale(training: pd.DataFrame, *, last: int | None = None) -> NoiseScale | Unknown:
    """Noise scale of a run's last steps: the fewest that allow to tell it, doubled from eight on.

    Parameters
    ----------
    training
        The table `training`, or any with rank, step and the columns of `COLUMNS`.
    last
        Steps to use, without a search.

    Returns
    -------
    NoiseScale or Unknown
        The latest that can be told.
    """
    steps = known_steps(training)
    if last is not None:
        return noise_scale_of(steps[-last:])
    if len(steps) < _FEWEST:
        return noise_scale_of(steps)
    length = _FEWEST
    while True:
        told = noise_scale_of(steps[-length:])
        if isinstance(told, NoiseScale) or length >= len(steps):
            return told
        length = min(2 * length, len(steps))


def last_windows(steps: Floats, planned_steps: int | None) -> tuple[tuple[NoiseScale, ...], int] | Unknown:
    """Noise scales of the last three windows of steps, as short as they may be, and the steps of each.

    A window holds 1 % of the planned steps at least.
    """
    fewest = max(_FEWEST, int(_SHARE_OF_RUN * (planned_steps or 0)))
    if len(steps) < WINDOWS * fewest:
        reason = (
            f"{WINDOWS * fewest} steps with the squares of micro-batch gradients are needed, here are {len(steps)}: they take "
            "two micro-batches, or two ranks"
        )
        return Unknown(reason, "gradient_squares(...) around the loop")
    length = fewest
    while WINDOWS * length <= len(steps):
        ends = [len(steps) - back * length for back in reversed(range(WINDOWS))]
        told = [noise_scale_of(steps[end - length : end]) for end in ends]
        known = tuple(each for each in told if isinstance(each, NoiseScale))
        if len(known) == WINDOWS:
            return known, length
        length *= 2
    reason = (
        f"the noise scale is not known from {len(steps)} steps: each of {WINDOWS} windows has to hold 10 to 20 times as many "
        "samples as it, and an interval within a factor 4"
    )
    return Unknown(reason, "more steps")


def noise_scale_windows(run: Run) -> pd.DataFrame:
    """Noise scale along a run, in windows as short as they may be: what a chart of it draws.

    Parameters
    ----------
    run
        A run whose table `training` holds the squares of micro-batch gradients.

    Returns
    -------
    pandas.DataFrame
        One row per window that allows to tell: step (its last), noise_scale, low, high, batch_size, steps. At most 200.
    """
    steps = known_steps(run.training)
    rows: list[tuple[float, ...]] = []
    start, length = 0, max(_FEWEST, int(_SHARE_OF_RUN * (whole_number(run.config, "planned_steps") or 0)), len(steps) // 200)
    size = length
    while start + size <= len(steps):
        window = steps[start : start + size]
        told = noise_scale_of(window)
        if isinstance(told, NoiseScale):
            rows.append((window[-1, 0], told.value, told.low, told.high, told.batch, told.steps))
            start, size = start + size, length
        else:
            size *= 2
    return pd.DataFrame(rows, columns=["step", "noise_scale", "low", "high", "batch_size", "steps"], dtype="float64")


def known_steps(training: pd.DataFrame) -> Floats:
    """Step, samples, micro-batches, mean square of their gradients, square of the whole, parts seen; of steps that know them.

    Samples and micro-batches are summed over ranks; the two squares have to be those of all ranks together. How many parts are
    behind the mean is in a column parts_seen; without it one of each rank is: accumulating loops look at their first one.
    """
    known = training.dropna(subset=list(COLUMNS))
    if "skipped" in known:
        known = known[~known["skipped"].fillna(value=False).astype(bool)]
    known = known.drop_duplicates(["rank", "step"], keep="last")
    if "parts_seen" not in known:
        known = known.assign(parts_seen=1)
    by_step = known.groupby("step", sort=True).agg(
        batch_size=("batch_size", "sum"),
        micro_batches=("micro_batches", "sum"),
        micro_gradient_square=("micro_gradient_square", "mean"),
        gradient_square=("gradient_square", "mean"),
        parts_seen=("parts_seen", "sum"),
    )
    values: Floats = by_step.astype("float64").reset_index().to_numpy(dtype=np.float64)
    return values[np.isfinite(values).all(axis=1) & (values[:, 2] > 1) & (values[:, 1] > 0)]


def exact_noise_scale(gradients: Floats) -> float:
    """Noise scale of single samples' gradients: the trace of their covariance over the square of their mean.

    Parameters
    ----------
    gradients
        One row per sample.

    Examples
    --------
    >>> exact_noise_scale(np.array([[2.0, 1.0], [2.0, -1.0]]))
    0.25
    """
    mean = gradients.mean(axis=0)
    square = float((mean**2).sum())
    return (float((gradients**2).sum(axis=1).mean()) - square) / square if square > 0.0 else math.inf
