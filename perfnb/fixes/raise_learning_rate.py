"""Fix: train with a higher learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfnb.fix import FixExample, fix
from perfnb.training.rates import current_rate, scaled

_TIMES: Final = 2.5


@fix(
    knobs=("learning_rate",),
    answers=("learning_rate_too_low",),
    reason="a run that crawls at first does so because its steps are short",
    source="DeepOBS sweep: the rate was too low in 22 of 30 runs that were called so, within a decade of the best in 3 of 7",
    caution="probe it first with 2.5 and 10 times the rate: a curve alone is right about every other time near the best rate",
    examples=(
        FixExample("a tenth of a thousandth", {"learning_rate": 1e-4}, {"learning_rate": 2.5e-4}),
        FixExample("not a number", {"learning_rate": True}, None, "True"),
    ),
)
def raise_learning_rate(config: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """Multiply the rate by 2.5: what a probe should try first."""
    rate = current_rate(config)
    return rate if isinstance(rate, str) else {"learning_rate": scaled(rate, _TIMES)}
