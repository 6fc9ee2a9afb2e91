"""Fix: let the learning rate decay over the rest of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perfnb.config.mapping import value_of
from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.training.curve import curve_of, whole_number
from perfnb.training.examples import curve_run

_RUN = curve_run(np.ones(80))


@fix(
    knobs=("decay_steps",),
    answers=("loss_plateau", "missing_decay"),
    reason="steps that stay long keep the loss above what the weights could reach; shorter ones settle",
    source="Hägele et al. (2024), Compute-Optimal Training Beyond Fixed Training Durations: a constant rate, then a cooldown",
    caution="not validated on runs of ours: fork with the decay and without it, both to the end",
    examples=(
        FixExample("20 of 100 steps left", {"decay_steps": 0, "planned_steps": 100}, {"decay_steps": 20}, make_run=lambda: _RUN),
        FixExample("not set so far", {"decay_steps": None, "planned_steps": 100}, {"decay_steps": 20}, make_run=lambda: _RUN),
        FixExample(
            "it decays already", {"decay_steps": 30, "planned_steps": 100}, None, "30 steps already", make_run=lambda: _RUN
        ),
        FixExample("the run is over", {"decay_steps": 0, "planned_steps": 80}, None, "no step is left", make_run=lambda: _RUN),
        FixExample("how long it will run is not known", {"decay_steps": 0}, None, "planned_steps", make_run=lambda: _RUN),
        FixExample("nothing recorded", {"decay_steps": 0, "planned_steps": 100}, None, "nothing was recorded"),
    ),
)
def decay_learning_rate(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Decay linearly to zero over the steps that are left."""
    now = value_of(config, "decay_steps")
    if isinstance(now, int | float) and not isinstance(now, bool) and now > 0:
        return f"the rate decays over {now} steps already"
    planned = whole_number(config, "planned_steps")
    if planned is None:
        return "how long the run will be is not known: give planned_steps in the config"
    if run.training.empty:
        return "nothing was recorded of the training, so how far it is is not known"
    left = planned - curve_of(run.training, run.config).done_steps
    return {"decay_steps": left} if left > 0 else "no step is left"
