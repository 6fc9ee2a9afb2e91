"""The learning-rate range test, a baseline: the rate rises at each step, and a rule picks one from the curve."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from benchmarks.training.probe_tasks import Live, Task

STEPS: Final = 100
"""Of the test: half a run."""

LOWEST, HIGHEST = -5.0, 1.0
"""Decades of the rates that are passed through."""

_SMOOTHING: Final = 0.05
_GIVES_UP: Final = 5.0  # times the lowest loss so far


def range_test(task: Task) -> tuple[float, float]:
    """Positions that two rules pick: the steepest fall of the smoothed loss, and a tenth of the rate with the lowest.

    Smith (2017), Cyclical Learning Rates; the steepest fall is what torch-lr-finder suggests. Both written anew from their
    descriptions.

    Returns
    -------
    steepest, tenth
        Decades from the task's own rate.
    """
    decades = np.linspace(LOWEST, HIGHEST, STEPS)
    live = Live(task, LOWEST - math.log10(task.rate))
    smooth: list[float] = []
    for decade, batch in zip(decades, live.batches[:STEPS], strict=True):
        for group in live.optimizer.param_groups:
            group["lr"] = 10.0**decade
        loss = float(live.step(batch))
        smooth.append(loss if not smooth else _SMOOTHING * loss + (1.0 - _SMOOTHING) * smooth[-1])
        if not math.isfinite(loss) or smooth[-1] > _GIVES_UP * min(smooth):
            break
    curve = np.array(smooth if math.isfinite(smooth[-1]) else smooth[:-1])
    steepest = float(decades[int(np.argmin(np.gradient(curve)))]) if len(curve) > 1 else LOWEST
    tenth = float(decades[int(np.argmin(curve))]) - 1.0
    return steepest - math.log10(task.rate), tenth - math.log10(task.rate)
