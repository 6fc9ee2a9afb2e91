"""Detector of a constant rate near the end of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb import text
from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay

_BELOW: Final = 0.2
_PLAN = {"planned_steps": 100}


@detector(
    family="training",
    unit="training",
    title="The rate does not decay",
    injected_by="nothing yet: it is a rule",
    source="a rule of thumb that no labelled run of ours has tested: a decay over the last fifth",
    not_to_confuse_with=("loss_plateau",),
    flag_above=_BELOW,
    recorded_only_when="runs forked at 80 %, with and without a decay, are there",
    examples=(
        curve_example(
            "15 of 100 steps left, on both of two ranks", decay(85), fires=True, ranks=2, config=_PLAN, learning_rate=0.1
        ),
        curve_example("25 left", decay(75), fires=False, config=_PLAN, learning_rate=0.1),
        curve_example("a rate that falls", decay(85), fires=False, config=_PLAN, learning_rate=decay(85)),
        curve_example(
            "no rates, but a config that says constant", decay(85), fires=True, config={**_PLAN, "schedule": "constant"}
        ),
        curve_example("a schedule that nobody told", decay(85), fires=None, config=_PLAN),
        curve_example("the run is over", decay(100), fires=False, config=_PLAN, learning_rate=0.1),
        curve_example("how long it will run is not known", decay(85), fires=None, learning_rate=0.1),
    ),
)
def missing_decay(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Constant learning rate with less than a fifth of the planned steps left.

    It matters because the noise of steps that stay long keeps the loss above what the weights could reach; a decay over the rest
    takes it away. It is a rule, not a measurement: it cannot say how much a decay brings, and for some runs it brings nothing.
    """
    curve = curve_of(training, config)
    if curve.planned_steps is None:
        message = "how long the run will be is not known: give planned_steps in the config"
        raise Unmeasured(message)
    if curve.is_constant_rate is None:
        message = "whether the rate moves is not known: log learning_rate, or give schedule in the config"
        raise Unmeasured(message)
    left = max(0.0, 1.0 - curve.done_steps / curve.planned_steps)
    place = [len(curve.steps) - 1]
    words = (
        f"The rate {'is constant' if curve.is_constant_rate else 'moves'}, and {text.share(left)} of the planned steps are left"
    )
    return evidence(curve, place, left, _BELOW, fires=curve.is_constant_rate and 0.0 < left < _BELOW, symptom=words)
