"""Detector of a loss that spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from perfnb import text
from perfnb.detector import detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.spikes import FROM_STEP, SHARE_ABOVE, SIGMAS, spikes

_OF_NORM = 3.0


def _spiked(every: int, count: int = 600) -> np.ndarray:
    losses = decay(count)
    losses[FROM_STEP + 30 :: every] *= 3.0
    return losses


@detector(
    family="training",
    unit="training",
    title="The loss spikes",
    injected_by="the worst fifth of AlgoPerf runs",
    source="training.md 3: over 1 % of steps above 5 robust sigma; how often on healthy runs: python -m benchmarks.training "
    "corpus detection",
    not_to_confuse_with=("loss_plateau", "overfitting"),
    flag_above=SHARE_ABOVE,
    examples=(
        curve_example("every fortieth of 400 steps, on both of two ranks", _spiked(40), fires=True, ranks=2),
        curve_example("every 150th", _spiked(150), fires=False),
        curve_example("spikes before step 200 alone", np.concatenate([3 * decay(150), decay(300)]), fires=False),
        curve_example("seventy-nine losses after step 200", _spiked(10, FROM_STEP + 79), fires=None),
        curve_example("a constant", np.ones(600), fires=None),
    ),
)
def loss_spikes(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Share of one-step jumps of the loss above five robust standard deviations of all its steps, past warm-up and step 200.

    It matters because each spike undoes steps that were paid for, and some never come back. Evidence has a row per spike with
    `norm_sigmas`: how far the gradient norm stood out there or one step before, NaN where no norm was recorded. It cannot see
    spikes of a curve that is logged less than each step, since a mean hides them. Counted on logged points, not on steps.
    """
    curve = curve_of(training, config)
    found = spikes(curve)
    fires = found.share > SHARE_ABOVE
    norms = _norm_sigmas(curve.gradient_norms)
    at = found.at if len(found.at) else found.places[-1:]
    out = np.fmax(norms[at], norms[np.maximum(at - 1, 0)])
    words = (
        f"{len(found.at):,} of {len(found.is_spike):,} steps after step {FROM_STEP} were spikes of over {SIGMAS:.0f} robust "
        f"standard deviations ({text.share(found.share)})"
    )
    if len(found.at) and np.isfinite(out).any():
        words += f"; at {int((out > _OF_NORM).sum())} of them the gradient norm stood out too"
    return evidence(curve, at, found.share, SHARE_ABOVE, fires=fires, norm_sigmas=out, symptom=words)


def _norm_sigmas(norms: np.ndarray) -> np.ndarray:
    """How far each gradient norm stands above the median, in robust standard deviations of its logarithm."""
    known = np.isfinite(norms) & (norms > 0)
    if not known.any():
        return np.full(len(norms), np.nan)
    logs = np.log(np.where(known, norms, np.nan))
    middle = float(np.nanmedian(logs))
    sigma = 1.4826 * float(np.nanmedian(np.abs(logs - middle)))
    return (logs - middle) / sigma if sigma > 0 else np.full(len(norms), np.nan)
