"""Detector of a loss that has stopped falling under a constant rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.curve import curve_of, evidence
from perfnb.training.examples import curve_example, decay
from perfnb.training.statistics import block_means, block_size, theil_sen_range

_FEWEST: Final = 20
_WINDOW: Final = 0.2
_FIRST: Final = 0.02
_BELOW: Final = 0.01
_LEAST_LEFT: Final = 0.1  # of the plan: past it every curve brings little more, and a stop saves little
_PLAN = {"planned_steps": 400, "schedule": "constant"}
_FLAT = np.concatenate([np.linspace(2.0, 1.0, 100), np.ones(150)])
_COSINE = 0.1 * (1.0 + np.cos(np.pi * np.arange(250) / 400)) / 2.0


@detector(
    family="training",
    unit="training",
    title="The loss has stopped falling",
    injected_by="finite DeepOBS runs at 25, 50 and 75 %",
    source="training.md 3: no more than 1 % more came after 97 to 98 % of the fires on 439 finite DeepOBS runs",
    not_to_confuse_with=("rising_loss", "loss_spikes"),
    flag_above=_BELOW,
    examples=(
        curve_example("flat for 150 steps, 150 to come, on both of two ranks", _FLAT, fires=True, config=_PLAN, ranks=2),
        curve_example("still falling", np.linspace(2.0, 1.0, 250), fires=False, config=_PLAN),
        curve_example("flat, but so noisy that much may come", _FLAT + decay(250, noise=0.9, seed=1), fires=False, config=_PLAN),
        curve_example("it never fell", np.linspace(1.0, 2.0, 250), fires=False, config=_PLAN),
        curve_example("a constant", np.ones(250), fires=False, config=_PLAN),
        curve_example("the tail of a cosine schedule", _FLAT, fires=None, config=_PLAN, learning_rate=_COSINE),
        curve_example("a schedule that nobody told", _FLAT, fires=None, config={"planned_steps": 400}),
        curve_example("how long it will run is not known", _FLAT, fires=None, config={"schedule": "constant"}),
        curve_example("the run is over", _FLAT, fires=None, config={**_PLAN, "planned_steps": 250}),
        curve_example("too short", _FLAT[:90], fires=None, config=_PLAN),
    ),
)
def loss_plateau(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Most that the rest of the run can bring, if the loss goes on as over its last fifth: under 1 % of what it fell so far.

    The best case is the steepest slope that the 90 % interval of Theil-Sen allows, times what is left of the run. It matters
    because at a constant rate such a run only costs: decay the rate, or stop. It cannot tell a rate that is too high from one
    that is too low: a probe does. A schedule that moves the rate makes its own flat tails, so it speaks under a constant rate
    only.
    """
    curve = curve_of(training, config)
    if curve.planned_steps is None:
        message = "how long the run will be is not known: give planned_steps in the config"
        raise Unmeasured(message)
    if not curve.is_constant_rate:
        what = "is not known: log learning_rate" if curve.is_constant_rate is None else "moves the rate"
        message = f"a plateau shows under a constant rate only, and the schedule {what}"
        raise Unmeasured(message)
    left_steps = curve.planned_steps - curve.done_steps
    if left_steps < _LEAST_LEFT * curve.planned_steps:
        message = f"under a tenth of the {curve.planned_steps} planned steps is left, where every curve brings little more"
        raise Unmeasured(message)
    places = curve.after_warmup()
    blocks = block_means(curve.losses[places])
    window = blocks[len(blocks) - int(_WINDOW * len(blocks)) :]
    if len(window) < _FEWEST or not np.isfinite(blocks).all():
        message = (
            f"{_FEWEST} blocks of finite losses in the last fifth of the curve are needed, here are "
            f"{int(np.isfinite(window).sum())} of {len(blocks)} in all"
        )
        raise Unmeasured(message)
    dropped = float(blocks[: max(1, int(_FIRST * len(blocks)))].max() - np.median(window[-max(1, len(window) // 5) :]))
    steps_per_block = block_size(len(places)) * float(np.median(np.diff(curve.steps[places])))
    left = left_steps / steps_per_block
    if dropped <= 0.0:
        words = "The loss has not fallen since the start, so that nothing says how much could still come"
        return evidence(curve, places[-1:], np.nan, _BELOW, fires=False, symptom=words)
    _, low, _ = theil_sen_range(window)
    best = -low * left / dropped
    words = (
        f"At step {curve.steps[places[-1]]} of {curve.planned_steps} the rest of the run brings at most {100 * max(best, 0):.2g} "
        f"% of what the loss fell so far, if it goes on as over its last fifth"
    )
    return evidence(curve, places[-1:], best, _BELOW, fires=best < _BELOW, symptom=words)
