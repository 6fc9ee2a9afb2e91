"""The learning rate that a change starts from: what the config says, or what the run recorded last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from perfnb.config.mapping import has_knob, value_of
from perfnb.run import Run


def current_rate(config: Mapping[str, Any]) -> float | str:
    """Learning rate of a config as a number, or why there is none."""
    value = value_of(config, "learning_rate") if has_knob(config, "learning_rate") else None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    return f"learning_rate is {value!r}, not a number above zero"


def scaled(rate: float, factor: float) -> float:
    """A rate times a factor, at six digits: 0.4 x 0.1 is 0.04, not 0.04000000000000001.

    Examples
    --------
    >>> scaled(0.1, 0.4)
    0.04
    """
    return float(f"{rate * factor:.6g}")


def last_recorded_rate(run: Run) -> float | None:
    """Learning rate of the last step that tells one; None where none does."""
    told = run.training["learning_rate"].dropna()
    return float(told.iloc[-1]) if len(told) and math.isfinite(told.iloc[-1]) and told.iloc[-1] > 0 else None
