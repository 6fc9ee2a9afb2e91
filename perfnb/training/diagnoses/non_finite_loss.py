"""Detector of a loss that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay

_WITHIN: Final = 5
_FEWEST: Final = 2
_LONE = [*decay(10), math.nan, *decay(10)]
_GONE = [*decay(10), math.nan, math.inf, math.nan]


@detector(
    family="training",
    unit="training",
    title="The loss is not finite",
    injected_by="rates of the DeepOBS sweep at which the loss diverged",
    source="training.md 3: twice within 5 points; one alone may be a bad batch that leaves no trace in the weights",
    not_to_confuse_with=("rising_loss", "loss_spikes"),
    flag_above=_FEWEST,
    examples=(
        curve_example("three in a row, on both of two ranks", _GONE, fires=True, ranks=2),
        curve_example("one alone, and training goes on", _LONE, fires=False),
        curve_example("two that are six points apart", [1.0, math.nan, 1, 1, 1, 1, math.inf, 1], fires=False),
        curve_example("two that are five points apart", [1.0, math.nan, 1, 1, 1, math.inf, 1], fires=True),
        curve_example("the recording ends on it", [*decay(10), math.inf], fires=True),
        curve_example("steps that the gradient scaler skipped", _GONE, fires=False, skipped=[*[False] * 10, True, True, True]),
        curve_example("a curve that stays finite", decay(50), fires=False),
    ),
)
def non_finite_loss(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Losses that are NaN or infinite: twice within five points, or at the last point recorded.

    It matters because a weight that is not finite stays so: nothing that is computed from then on counts. Steps that a gradient
    scaler skipped do not count, since the weights did not change. It cannot tell a learning rate that is too high from a bad
    batch or a number format that is too narrow: rule those out first.
    """
    curve = curve_of(training, config)
    places = curve.points
    if not len(places):
        message = "no loss was recorded: log the loss of each step"
        raise Unmeasured(message)
    bad = ~np.isfinite(curve.losses[places])
    if not bad.any():
        words = f"The loss was finite at all {len(places):,} points"
        return evidence(curve, places[-1:], 0, _FEWEST, fires=False, symptom=words)
    total = np.concatenate([[0], np.cumsum(bad)])
    near = total[1:] - total[np.maximum(np.arange(len(bad)) - _WITHIN + 1, 0)]
    is_last = np.arange(len(bad)) == len(bad) - 1
    fires = bad & ((near >= _FEWEST) | is_last)
    first, count = int(curve.steps[places[bad][0]]), int(bad.sum())
    words = (
        f"The loss was not finite at {count:,} of {len(places):,} points, first at step {first}"
        if fires.any()
        else f"The loss was not finite once at a time, at step {first}{' and others' if count > 1 else ''}, and finite after it"
    )
    return evidence(curve, places[bad], near[bad], _FEWEST, fires=fires[bad], symptom=words)
