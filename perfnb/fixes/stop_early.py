"""Fix: stop where the validation loss was best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.training.curve import curve_of
from perfnb.training.examples import curve_run
from perfnb.training.statistics import smoothed

_FEWEST: Final = 12
_EVERY_TENTH = np.where(np.arange(200) % 10 == 0, (np.arange(200) / 100.0 - 1.0) ** 2 + 1.0, np.nan)


@fix(
    knobs=("max_steps",),
    answers=("overfitting",),
    reason="past that step the model learns its training data and gets worse at all other",
    source="Prechelt (1998), Early Stopping - But When?; 105 of 156 AlgoPerf runs called so lost over 1 % of their drop",
    caution="the weights of that step are needed: restore its checkpoint. Regularise to go on; a lower rate is no cure",
    examples=(
        FixExample(
            "best at step 100 of 200",
            {"max_steps": 400},
            {"max_steps": 100},
            make_run=lambda: curve_run(np.ones(200), validation_loss=_EVERY_TENTH),
        ),
        FixExample(
            "no limit so far",
            {"max_steps": None},
            {"max_steps": 100},
            make_run=lambda: curve_run(np.ones(200), validation_loss=_EVERY_TENTH),
        ),
        FixExample(
            "best at the end",
            {"max_steps": 400},
            None,
            "last evaluation",
            make_run=lambda: curve_run(np.ones(200), validation_loss=_EVERY_TENTH[::-1] - np.arange(200.0)),
        ),
        FixExample("never evaluated", {"max_steps": 400}, None, "12 evaluations", make_run=lambda: curve_run(np.ones(200))),
        FixExample("nothing recorded", {"max_steps": 400}, None, "12 evaluations"),
    ),
)
def stop_early(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """End the run at the minimum of the validation loss, smoothed by a running mean of three."""
    now = value_of(config, "max_steps")
    curve = None if run.training.empty else curve_of(run.training, run.config)
    places = np.flatnonzero(np.isfinite(curve.validation_losses)) if curve else np.empty(0, dtype=np.intp)
    if curve is None or len(places) < _FEWEST:
        return f"{_FEWEST} evaluations are needed, here are {len(places)}"
    losses = curve.validation_losses[places]
    best = int(np.argmin(smoothed(losses)))
    if best >= len(places) - 2:
        return "validation was best at the last evaluation, or the one before"
    step = int(curve.steps[places[best]])
    if isinstance(now, int) and not isinstance(now, bool) and 0 < now <= step:
        return f"the run ends at step {now} already"
    return {"max_steps": step}
