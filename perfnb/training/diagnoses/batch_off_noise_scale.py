"""Detector of a batch that is far from the gradient noise scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.bootstrap import resamples
from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.statistics import Floats

_BAND: Final = 10.0
_WINDOWS: Final = 3
_FEWEST: Final = 8
_SHARE_OF_RUN: Final = 0.01
_MANY: Final = 8  # micro-batches from which fewer samples suffice
_SAMPLES: Final = (20.0, 10.0)  # batches' samples over the noise scale: of fewer micro-batches, of many
_WIDEST: Final = 4.0
_INTERVAL: Final = (0.1, 0.9)
_DRAWS: Final = 200


def _squares(noise_scale: float, batch: float = 64.0, parts: int = 8, steps: int = 90) -> dict[str, Any]:
    """Columns of steps whose gradient has the square 1 and whose noise scale is the one given, with 10 % of scatter."""
    random = 1.0 + 0.1 * np.random.default_rng(4).standard_normal(steps)
    part = batch / parts
    return {
        "batch_size": batch,
        "micro_batches": parts,
        "micro_gradient_square": 1.0 + noise_scale * random / part,
        "gradient_square": 1.0 + noise_scale * random / batch,
    }


@detector(
    family="training",
    unit="training",
    title="The batch is far from the noise scale",
    injected_by="nothing yet: two tasks are suggestive at most",
    source="McCandlish et al. (2018), Large-Batch Training; a factor 10, since B_simple was 4 times off on two tasks",
    not_to_confuse_with=("loss_plateau",),
    flag_above=_BAND,
    recorded_only_when="runs at several batch sizes to one loss are there",
    examples=(
        curve_example("64 samples, a scale of 1,000: too small", decay(900), fires=True, **_squares(1_000.0, steps=900)),
        curve_example("64 samples, a scale of 3: too large", decay(90), fires=True, **_squares(3.0)),
        curve_example("64 samples, a scale of 100: within the band", decay(90), fires=False, **_squares(100.0)),
        curve_example("32 samples on each of two ranks", decay(90), fires=True, ranks=2, **_squares(3.0, batch=32.0, parts=4)),
        curve_example("a scale of 1,000 from few steps", decay(90), fires=None, **_squares(1_000.0)),
        curve_example("one micro-batch", decay(90), fires=None, **_squares(3.0) | {"micro_batches": 1}),
        curve_example("no squares", decay(90), fires=None, batch_size=64.0),
    ),
)
def batch_off_noise_scale(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Batch size over the gradient noise scale, or its inverse: over 10 in each of the last three windows of steps.

    The scale is the mean over a window of S = (mean |g_b|^2 - |g_B|^2)/(1/b - 1/B) over that of
    G2 = (B |g_B|^2 - b mean |g_b|^2)/(B - b), of micro-batches of b samples in batches of B. It matters because a batch far
    below it pays for noise with steps, and one far above pays for samples that add nothing. It cannot speak without two
    micro-batches, of few samples, or within the band; batch norm breaks its assumption, and how it holds under Adam was not
    measured.
    """
    curve = curve_of(training, config)
    steps = _of_steps(training)
    fewest = max(_FEWEST, int(_SHARE_OF_RUN * (curve.planned_steps or 0)))
    if len(steps) < _WINDOWS * fewest:
        message = (
            f"{_WINDOWS * fewest} steps with the squares of micro-batch gradients are needed, here are {len(steps)}: they "
            "take two micro-batches, or two ranks"
        )
        raise Unmeasured(message)
    length = fewest
    while _WINDOWS * length <= len(steps):
        windows = [steps[len(steps) - (back + 1) * length : len(steps) - back * length] for back in reversed(range(_WINDOWS))]
        told = [_scale(window) for window in windows]
        if all(scale is not None for scale in told):
            break
        length *= 2
    else:
        message = (
            f"the noise scale is not known from {len(steps)} steps: each of {_WINDOWS} windows has to hold 10 to 20 times as "
            "many samples as it, and an interval within a factor 4"
        )
        raise Unmeasured(message)
    ends = np.searchsorted(curve.steps, [int(window[-1, 0]) for window in windows])
    batch = np.array([float(np.median(window[:, 1])) for window in windows])
    middle, low, high = (np.array([scale[place] for scale in told if scale]) for place in range(3))
    is_small, is_large = bool((low > _BAND * batch).all()), bool((high < batch / _BAND).all())
    off = np.maximum(batch / middle, middle / batch)
    side = "clearly too small" if is_small else "clearly too large" if is_large else "within the band"
    words = (
        f"The batch of {batch[-1]:.4g} samples is {side}: the gradient noise scale is {middle[-1]:.3g} ({low[-1]:.3g} to "
        f"{high[-1]:.3g}) over the last {length} steps; not validated under Adam or batch norm"
    )
    fires = np.array([False, False, is_small or is_large])
    return evidence(
        curve, ends, off, _BAND, fires=fires, noise_scale=middle, low=low, high=high, is_small=is_small, symptom=words
    )


def _of_steps(training: pd.DataFrame) -> Floats:
    """Step, samples, micro-batches, mean square of their gradients and square of the whole, of steps that know them all."""
    columns = ["batch_size", "micro_batches", "micro_gradient_square", "gradient_square"]
    known = training.dropna(subset=columns)
    known = known[~known["skipped"].fillna(value=False).astype(bool)].drop_duplicates(["rank", "step"], keep="last")
    by_step = known.groupby("step", sort=True).agg(
        batch_size=("batch_size", "sum"),
        micro_batches=("micro_batches", "sum"),
        micro_gradient_square=("micro_gradient_square", "mean"),
        gradient_square=("gradient_square", "mean"),
    )
    values: Floats = by_step.astype("float64").reset_index().to_numpy(dtype=np.float64)
    return values[np.isfinite(values).all(axis=1) & (values[:, 2] > 1) & (values[:, 1] > 0)]


def _scale(window: Floats) -> tuple[float, float, float] | None:
    """Noise scale of a window with its 80 % interval; None where the window does not allow to speak."""
    _, batch, parts, micro, whole = window.T
    part = batch / parts
    signal = (batch * whole - part * micro) / (batch - part)
    noise = (micro - whole) / (1.0 / part - 1.0 / batch)
    rows = resamples(len(window), _DRAWS)
    drawn = noise[rows].mean(axis=1) / signal[rows].mean(axis=1)
    middle = float(noise.mean() / signal.mean())
    if not (middle > 0 and (drawn > 0).all() and np.isfinite(drawn).all()):
        return None
    low, high = (float(end) for end in np.quantile(drawn, _INTERVAL))
    needed = _SAMPLES[int(np.median(parts) >= _MANY)] * middle
    return (middle, low, high) if batch.sum() >= needed and high < _WIDEST * low else None
