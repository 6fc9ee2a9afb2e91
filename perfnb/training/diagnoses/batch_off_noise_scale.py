"""Detector of a batch that is far from the gradient noise scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.prediction import Unknown
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.noise_scale import BAND, WINDOWS, known_steps, last_windows


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
    flag_above=BAND,
    recorded_only_when="runs at several batch sizes to one loss are there",
    examples=(
        curve_example("64 samples, a scale of 1,000: too small", decay(1_800), fires=True, **_squares(1_000.0, steps=1_800)),
        curve_example("64 samples, a scale of 3: too large", decay(90), fires=True, **_squares(3.0)),
        curve_example("64 samples, a scale of 100: within the band", decay(120), fires=False, **_squares(100.0, steps=120)),
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
    steps = known_steps(training)
    found = last_windows(steps, curve.planned_steps)
    if isinstance(found, Unknown):
        raise Unmeasured(found.reason)
    told, length = found
    ends = np.searchsorted(curve.steps, [int(steps[len(steps) - back * length - 1, 0]) for back in reversed(range(WINDOWS))])
    middle, low, high, batch = (np.array([getattr(each, name) for each in told]) for name in ("value", "low", "high", "batch"))
    sides = {each.side for each in told}
    side = sides.pop() if len(sides) == 1 else "within the band"
    words = replace(told[-1], steps=length).sentence
    if side == "within the band":
        words = words.replace(told[-1].side, side)
    fires = np.array([False, False, side != "within the band"])
    return evidence(
        curve,
        ends,
        np.maximum(batch / middle, middle / batch),
        BAND,
        fires=fires,
        noise_scale=middle,
        low=low,
        high=high,
        is_small=side == "clearly too small",
        symptom=words,
    )
