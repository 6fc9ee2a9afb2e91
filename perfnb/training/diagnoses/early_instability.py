"""Detector of a loss that jumps up at the start of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.jump import LARGEST_RATIO, START, WINDOW, jump

_FEWEST: Final = 20
_LARGEST_START: Final = 10


def _peaked(peak: float, count: int = 40) -> np.ndarray:
    losses = decay(count, noise=0.0)
    losses[:3] = 2.0
    losses[8] = 2.0 * peak
    return losses


_SCATTER: Final = 1.0 + 0.3 * np.random.default_rng(6).uniform(-1.0, 1.0, 40)


@detector(
    family="training",
    unit="training",
    title="The loss jumps up at the start",
    injected_by="rates of the DeepOBS sweep that were too high",
    source="highest of losses 4 to 100 over 1.35 times the mean of the first 3 and beyond their scatter; how often it "
    "fires on healthy runs: python -m benchmarks.training corpus detection",
    not_to_confuse_with=("non_finite_loss",),
    flag_above=LARGEST_RATIO,
    examples=(
        curve_example("up to 1.4 times its start, on both of two ranks", _peaked(1.4), fires=True, ranks=2),
        curve_example("1.4 times its start, among losses that scatter by a third", _peaked(1.4) * _SCATTER, fires=False),
        curve_example("up to 1.3 times its start", _peaked(1.3), fires=False),
        curve_example("up to twice its start after the first 100", [*decay(100, noise=0), 4.0], fires=False),
        curve_example("a first loss far above the next ones is no jump", [9.0, 1.0, 1.0, *decay(40, start=1)], fires=False),
        curve_example("a log of every hundredth step", _peaked(1.4), fires=None, steps=list(range(0, 4000, 100))),
        curve_example("nineteen losses", _peaked(1.4, 19), fires=None),
        curve_example("a loss that starts below zero", -decay(40), fires=None),
        curve_example("a constant", np.ones(40), fires=False),
    ),
)
def early_instability(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Largest of losses 4 to 100 over the mean of the first three: a jump of over 35 %, and of more than they scatter.

    It matters because such a run loses what its initialisation was worth, and often stays worse to the end: a warm-up or a lower
    rate avoids it. It cannot see jumps after the first 100 points, nor speak of a log whose first three points are over ten steps
    apart, since their mean is no start; and among losses of small batches it sees large jumps alone.
    """
    curve = curve_of(training, config)
    losses = curve.losses[curve.points[:WINDOW]]
    if len(losses) < _FEWEST:
        message = f"{_FEWEST} losses from the start are needed, here are {len(losses)}"
        raise Unmeasured(message)
    apart = int(curve.steps[curve.points[START - 1]] - curve.steps[curve.points[0]])
    if apart > _LARGEST_START:
        message = f"the first {START} losses are {apart} steps apart, so that the start is not known: log the loss of each step"
        raise Unmeasured(message)
    found = jump(losses)
    if found is None:
        message = (
            f"a ratio to the start needs a finite start above zero, the first {START} losses have the mean {curve.first_loss:.4g}"
        )
        raise Unmeasured(message)
    place = curve.points[[found.place]]
    words = (
        f"Within the first {len(losses)} losses the highest after the start, at step {curve.steps[place[0]]}, was "
        f"{found.ratio:.3g} times the start; a jump is over {found.threshold:.3g} times, by how much the losses scatter"
    )
    return evidence(curve, place, found.ratio, found.threshold, fires=found.is_one, symptom=words)
