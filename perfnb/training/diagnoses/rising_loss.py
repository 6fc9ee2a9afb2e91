"""Detector of a training loss that rises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import Curve, curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.statistics import ALARM_Z, block_means, block_size, log_loss, looks, mann_kendall, over_looks

_BLOCKS: Final = 50
_PLAN = {"planned_steps": 200}


def _turning(end: float) -> np.ndarray:
    """Falls for 100 steps, then moves to `end`."""
    noise = 1.0 + 0.01 * np.random.default_rng(3).standard_normal(200)
    return np.concatenate([np.linspace(2.0, 1.0, 100), np.linspace(1.0, end, 100)]) * noise


@detector(
    family="training",
    unit="training",
    title="The training loss rises",
    injected_by="rates of the DeepOBS sweep that were too high",
    source="Mann-Kendall z above 3.3 at one of 20 looks: 0.05 % per look, 1 % per run (Bonferroni)",
    not_to_confuse_with=("non_finite_loss", "loss_plateau"),
    flag_above=ALARM_Z,
    examples=(
        curve_example("it rises by half after step 100, on both of two ranks", _turning(1.5), fires=True, config=_PLAN, ranks=2),
        curve_example("it goes on falling", _turning(0.8), fires=False, config=_PLAN),
        curve_example("it stays where it is", np.ones(200), fires=False, config=_PLAN),
        curve_example("it rises by less than its noise lets see", _turning(1.001), fires=False, config=_PLAN),
        curve_example(
            "it rises while the rate warms up", np.linspace(1, 2, 100), fires=None, config={**_PLAN, "warmup_steps": 100}
        ),
        curve_example(
            "it rises while the rate does", np.linspace(1, 2, 100), fires=None, config=_PLAN, learning_rate=np.linspace(0, 1, 100)
        ),
        curve_example("no 50 blocks yet", decay(40), fires=None, config=_PLAN),
        curve_example("it is not a number", [*decay(100), *[math.nan] * 100], fires=False, config=_PLAN),
    ),
)
def rising_loss(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Training loss that rises over the last 50 blocks, more than chance would have it, at one of the looks at the run.

    Blocks are the mean of 1/200 of the curve, or single points of a short one. It matters because a loss that rises on the data
    that it is trained on is no overfitting: the steps are too large, or the data changed. It cannot speak in warm-up, while the
    rate rises, or in the 50 blocks after; and it is silent on most runs whose rate is too high, since those stall and do not
    rise.
    """
    curve = curve_of(training, config)
    usable = _settled(curve)
    rows = [found for end in looks(curve.steps, curve.planned_steps) if (found := _look(curve, usable[usable < end]))]
    if not rows:
        have = int(np.isfinite(block_means(curve.losses[usable])).sum())
        message = f"{_BLOCKS} blocks of finite losses after warm-up or restart are needed at a look, here are {have}"
        raise Unmeasured(message)
    fired = [row for row in rows if row[1] > ALARM_Z]
    shown = fired[0] if fired else rows[-1]
    words = (
        f"The training loss {'rose' if fired else 'did not rise'} over the {_BLOCKS} blocks of {shown[4]:,} points up to step "
        f"{curve.steps[shown[0]]} (z {shown[1]:.1f}, chance over all looks {shown[2]:.2g}), by a factor {math.exp(shown[3]):.3g}"
    )
    place, z, p_value, rise, _ = (np.array(column) for column in zip(*rows, strict=True))
    return evidence(curve, place, z, ALARM_Z, fires=z > ALARM_Z, p_value=p_value, log_rise=rise, symptom=words)


def _look(curve: Curve, places: np.ndarray) -> tuple[int, float, float, float, int] | None:
    """Place, z, chance over all looks, rise of the logarithm and points per block of one look; None of too few blocks."""
    blocks = block_means(curve.losses[places])[-_BLOCKS:]
    if len(blocks) < _BLOCKS or not np.isfinite(blocks).all():
        return None
    values = log_loss(blocks)
    found = mann_kendall(values)
    tenth = len(values) // 10
    rise = float(np.median(values[-tenth:]) - np.median(values[:tenth]))
    z, p_value = (found.z, found.p_value) if found else (0.0, 0.5)
    return int(places[-1]), z, over_looks(p_value), rise, block_size(len(places))


def _settled(curve: Curve) -> np.ndarray:
    """Points that count after warm-up, after the last rise of the rate and after the last return to an earlier state."""
    places = curve.after_warmup()
    rose = np.flatnonzero(np.diff(curve.learning_rates) > 1e-6 * np.abs(curve.learning_rates[:-1])) + 1
    if len(rose):
        places = places[places > rose[-1]]
    if curve.repeated_steps:
        places = places[curve.steps[places] > curve.repeated_steps[-1]]
    return places
