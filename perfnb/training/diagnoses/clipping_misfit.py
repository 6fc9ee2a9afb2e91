"""Detector of gradient clipping that clips most steps, or of none where the loss spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.config.mapping import has_knob
from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import Curve, curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.spikes import SHARE_ABOVE, spikes
from perfnb.training.statistics import wilson_interval

_FEWEST: Final = 20
_ABOVE: Final = 0.5
_NORMS = np.linspace(0.0, 2.0, 200)
_SPIKED = np.where(np.arange(600) % 40 == 0, 3.0, 1.0) * decay(600)


@detector(
    family="training",
    unit="training",
    title="Clipping does not fit the gradients",
    injected_by="nothing yet: it is a rule",
    source="a rule that no labelled run of ours has tested: the 95 % Wilson interval of the share of clipped steps above a half",
    not_to_confuse_with=("loss_plateau",),
    flag_above=_ABOVE,
    recorded_only_when="runs with and without clipping are there",
    examples=(
        curve_example(
            "60 % of 200 steps, on both of two ranks", decay(200), fires=True, ranks=2, gradient_norm=_NORMS, clip_norm=0.8
        ),
        curve_example("half of them", decay(200), fires=False, gradient_norm=_NORMS, clip_norm=1.0),
        curve_example("none, and the loss spikes", _SPIKED, fires=True, gradient_norm=1.0),
        curve_example("none, and it does not", decay(600), fires=False, gradient_norm=1.0),
        curve_example("nineteen steps", decay(19), fires=None, gradient_norm=1.0, clip_norm=0.5),
        curve_example("no norms", decay(200), fires=None, clip_norm=0.5),
        curve_example(
            "a clip_norm in the config, but not in the log", _SPIKED, fires=None, gradient_norm=1.0, config={"clip_norm": 1}
        ),
    ),
)
def clipping_misfit(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Share of steps whose gradient was clipped: over half of them; or no clipping at all while the loss spikes.

    It matters because a threshold below the usual norm turns every step into one of the same length, which is another learning
    rate than the one that was set. It is a rule, not a measurement: it cannot say that another threshold trains better.
    """
    curve = curve_of(training, config)
    known = np.flatnonzero(np.isfinite(curve.gradient_norms) & ~curve.is_skipped)
    if len(known) < _FEWEST:
        message = f"{_FEWEST} steps with a gradient norm are needed, here are {len(known)}: log gradient_norm before clipping"
        raise Unmeasured(message)
    clipping = known[np.isfinite(curve.clip_norms[known])]
    if not len(clipping):
        return _without(curve, known, config)
    if len(clipping) < _FEWEST:
        message = f"{_FEWEST} steps with gradient norm and clip_norm are needed, here are {len(clipping)}"
        raise Unmeasured(message)
    norms, limits = curve.gradient_norms[clipping], curve.clip_norms[clipping]
    clipped = int((norms > limits).sum())
    low, high = wilson_interval(clipped, len(clipping))
    words = (
        f"{clipped:,} of {len(clipping):,} steps were clipped (95 % interval of the share {low:.2f} to {high:.2f}); the norm's "
        f"90th percentile is {np.quantile(norms, 0.9):.3g}, the threshold {np.median(limits):.3g}"
    )
    return evidence(curve, clipping[-1:], low, _ABOVE, fires=low > _ABOVE, symptom=words)


def _without(curve: Curve, known: np.ndarray, config: Mapping[str, Any]) -> pd.DataFrame:
    if has_knob(config, "clip_norm"):
        message = "the config has a clip_norm, but the log does not say at which steps it held: log clip_norm"
        raise Unmeasured(message)
    found = spikes(curve)
    words = (
        f"No step was clipped, and {100 * found.share:.2g} % of the steps were spikes of the loss; the gradient norm's 95th "
        f"percentile is {np.quantile(curve.gradient_norms[known], 0.95):.3g}"
    )
    return evidence(curve, known[-1:], found.share, SHARE_ABOVE, fires=found.share > SHARE_ABOVE, symptom=words)
