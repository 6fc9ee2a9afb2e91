"""Detector of a validation loss that rises while the training loss falls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import Curve, curve_of, evidence
from perfnb.training.examples import curve_example
from perfnb.training.statistics import Floats, log_loss, mann_kendall, over_looks, smoothed, upper_tail

_FEWEST: Final = 12
_FEWEST_IN_HALF: Final = 10
_ALARM: Final = 1.96
_FALLING = 2.0 * 0.98 ** np.arange(120)


def _evaluated(end: float, every: int = 5) -> np.ndarray:
    """Validation losses at every fifth of 120 steps: they fall for half of the run, then move to `end`."""
    curve = np.concatenate([np.linspace(2.0, 1.0, 60), np.linspace(1.0, end, 60)])
    return np.where(np.arange(120) % every == every - 1, curve, np.nan)


@detector(
    family="training",
    unit="training",
    title="Validation loss rises while training loss falls",
    injected_by="epochs past the minimum in AlgoPerf runs",
    source="training.md 3: both Mann-Kendall z beyond 1.96 over the last half; how often on healthy runs: python "
    "-m benchmarks.training corpus detection",
    not_to_confuse_with=("rising_loss", "loss_plateau"),
    flag_above=_ALARM,
    examples=(
        curve_example("it rises to 1.3, on both of two ranks", _FALLING, fires=True, ranks=2, validation_loss=_evaluated(1.3)),
        curve_example("it goes on falling", _FALLING, fires=False, validation_loss=_evaluated(0.8)),
        curve_example("both rise", _FALLING[::-1], fires=False, validation_loss=_evaluated(1.3)),
        curve_example("it stays where it is", _FALLING, fires=False, validation_loss=np.ones(120)),
        curve_example("eleven evaluations", _FALLING, fires=None, validation_loss=_evaluated(1.3, 11)),
        curve_example("never evaluated", _FALLING, fires=None),
    ),
)
def overfitting(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Validation loss that rises over the last half of the evaluations while the training loss at the same ones falls.

    It matters because every further step makes the model worse at what it has not seen: stop at the best evaluation, or
    regularise. It is no sign of a learning rate that is too high, and no rate is cut for it. It cannot speak of fewer than 12
    evaluations, nor see a gap that was there from the start.
    """
    curve = curve_of(training, config)
    places = np.flatnonzero(np.isfinite(curve.validation_losses))
    trained = _training_losses(curve, places)
    both = np.isfinite(trained)
    places, trained = places[both], trained[both]
    kept = max(len(places) - len(places) // 2, _FEWEST_IN_HALF)
    if len(places) < _FEWEST:
        message = f"{_FEWEST} evaluations with a training loss are needed, here are {len(places)}"
        raise Unmeasured(message)
    validation = log_loss(curve.validation_losses[places[-kept:]])
    falling, rising = mann_kendall(log_loss(trained[-kept:])), mann_kendall(validation)
    z_train, z_validation = (each.z if each else 0.0 for each in (falling, rising))
    fires = z_train < -_ALARM and z_validation > _ALARM
    best = int(places[int(np.argmin(smoothed(curve.validation_losses[places])))])
    words = (
        f"Over the last {kept} of {len(places)} evaluations the validation loss {_moved(z_validation)} (z {z_validation:.1f}) "
        f"and the training loss {_moved(z_train)} (z {z_train:.1f}); validation was best at step {curve.steps[best]}"
    )
    return evidence(
        curve,
        places[-1:],
        z_validation,
        _ALARM,
        fires=fires,
        z_training=z_train,
        p_value=over_looks(upper_tail(z_validation)),
        best_step=int(curve.steps[best]),
        symptom=words,
    )


def _training_losses(curve: Curve, places: np.ndarray) -> Floats:
    """Mean of the training losses since the evaluation before, at each evaluation; NaN where there are none."""
    losses = np.where(curve.is_told & ~curve.is_skipped, curve.losses, np.nan)
    starts = np.concatenate([[0], places[:-1] + 1]) if len(places) else places
    pieces = [losses[start : place + 1] for start, place in zip(starts, places, strict=True)]
    pieces = [piece[np.isfinite(piece)] for piece in pieces]
    return np.array([piece.mean() if len(piece) else np.nan for piece in pieces], dtype=np.float64)


def _moved(z: float) -> str:
    return "rose" if z > _ALARM else "fell" if z < -_ALARM else "did not move beyond chance"
