"""Fix: train with a lower learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from perfnb.fix import FixExample, fix
from perfnb.run import Run
from perfnb.training.curve import curve_of
from perfnb.training.examples import curve_run
from perfnb.training.rates import current_rate, scaled

_AFTER_DIVERGENCE: Final = 0.1
_OTHERWISE: Final = 0.4


@fix(
    knobs=("learning_rate",),
    answers=("non_finite_loss", "rising_loss", "early_instability"),
    reason="steps that are too long raise the loss; shorter ones follow it down",
    source="DeepOBS sweep: where the loss was not finite the rate was too high in 193 of 193 runs; x0.1 did not always suffice",
    caution="probe it first: halving by reflex made 48 % of 46 small runs worse. Rule out bad batches and the number format",
    examples=(
        FixExample(
            "a loss that jumped", {"learning_rate": 0.1}, {"learning_rate": 0.04}, make_run=lambda: curve_run([1.0, 2.0, 1.0])
        ),
        FixExample(
            "a loss that is not finite",
            {"learning_rate": 0.1},
            {"learning_rate": 0.01},
            make_run=lambda: curve_run([1.0, np.nan]),
        ),
        FixExample(
            "in a nested config", {"optimizer": {"learning_rate": 3}}, {"learning_rate": 1.2}, make_run=lambda: curve_run([1.0])
        ),
        FixExample("not a number", {"learning_rate": "auto"}, None, "'auto'", make_run=lambda: curve_run([1.0])),
        FixExample("no rate at all", {"learning_rate": 0.0}, None, "not a number above zero", make_run=lambda: curve_run([1.0])),
    ),
)
def lower_learning_rate(config: Mapping[str, Any], run: Run) -> Mapping[str, Any] | str:
    """Multiply the rate by 0.4, and by 0.1 where the loss was not finite: what a probe should try first."""
    rate = current_rate(config)
    if isinstance(rate, str):
        return rate
    return {"learning_rate": scaled(rate, _AFTER_DIVERGENCE if _has_diverged(run) else _OTHERWISE)}


def _has_diverged(run: Run) -> bool:
    if run.training.empty:
        return False
    curve = curve_of(run.training, run.config)
    return bool((~np.isfinite(curve.losses[curve.points])).any())
