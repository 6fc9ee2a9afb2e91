"""Detector of a start that looks like those of runs whose rate was too low."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.detector import Unmeasured, detector
from perfnb.training.confidence import calibration
from perfnb.training.curve import curve_of, evidence
from perfnb.training.curve_score import BLOCKS, FEATURES, FEWEST, features, score
from perfnb.training.examples import curve_example
from perfnb.training.jump import jump
from perfnb.training.statistics import block_means

_FIRST: Final = 0.1
_ABOVE: Final = 0.5
_LARGEST_START: Final = 10
_PLAN = {"planned_steps": 600, "schedule": "constant"}
_NOISE = 1.0 + 0.001 * np.random.default_rng(5).standard_normal(60)
_CRAWL = np.linspace(2.0, 1.98, 60) * _NOISE
_FAST = (0.2 + 1.8 * np.exp(-np.arange(60) / 5.0)) * _NOISE


@detector(
    family="training",
    unit="training",
    title="The start looks like that of too low a rate",
    injected_by="rates of the DeepOBS sweep that were too low",
    source="eight curve features, L2 logistic fit on 648 DeepOBS runs; every count leaves its own problem out (calibration.json)",
    not_to_confuse_with=("non_finite_loss", "early_instability"),
    flag_above=_ABOVE,
    examples=(
        curve_example("1 % in a tenth of the run, on both of two ranks", _CRAWL, fires=True, config=_PLAN, ranks=2),
        curve_example("nine tenths of the loss in a tenth of the run", _FAST, fires=False, config=_PLAN),
        curve_example("it rises", _CRAWL[::-1], fires=False, config=_PLAN),
        curve_example("how long it will run is not known", _CRAWL, fires=None),
        curve_example("not a tenth of the run yet", _CRAWL, fires=None, config={**_PLAN, "planned_steps": 900}),
        curve_example("the rate still warms up", _CRAWL, fires=None, config={**_PLAN, "warmup_steps": 60}),
        curve_example("too few points", _CRAWL[:19], fires=None, config={**_PLAN, "planned_steps": 190}),
        curve_example("a schedule that nobody told", _CRAWL, fires=None, config={"planned_steps": 600}),
        curve_example("a rate that moves", _CRAWL, fires=None, config=_PLAN, learning_rate=np.linspace(0.1, 0.2, 60)),
    ),
)
def learning_rate_too_low(training: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Score of the first tenth of the run above a half: curves like it crawled because their rate was too low.

    It matters because such a run looks healthy, falling all the way, and ends far above what it could reach. The score ranks
    curves and is no probability, so it is not shown as one; how often it was right stands beside it. It cannot tell a low rate
    from a hard problem: a probe does; and it is silent unless the rate is known to be constant, as in all runs that it was
    fitted on, since a warm-up crawls too. A loss above its start, a jump or a loss that is not finite is no sign of a low rate.
    """
    curve = curve_of(training, config)
    if curve.planned_steps is None:
        message = "what a tenth of the run is is not known: give planned_steps in the config"
        raise Unmeasured(message)
    tenth = _FIRST * curve.planned_steps
    if curve.done_steps < tenth or curve.warmup_steps >= tenth:
        message = (
            f"the first tenth of the run is needed, past warm-up: {curve.done_steps} of {tenth:.0f} steps are there, of which "
            f"{curve.warmup_steps} warm up"
        )
        raise Unmeasured(message)
    places = curve.points[curve.steps[curve.points] < curve.steps[0] + tenth]
    if len(places) < FEWEST or curve.steps[places[2]] - curve.steps[places[0]] > max(_LARGEST_START, tenth / FEWEST):
        message = f"{FEWEST} losses of the first tenth of the run, from its start on, are needed, here are {len(places)}"
        raise Unmeasured(message)
    if not curve.upto(int(curve.steps[places[-1]])).is_constant_rate:
        message = (
            "the score was fitted on constant rates, and this one moves or is not known: log learning_rate, or give schedule"
        )
        raise Unmeasured(message)
    losses = curve.losses[places]
    found = features(block_means(losses, at_most=BLOCKS), losses)
    total = score(found, calibration()["score"])
    fires = total > _ABOVE and can_be_too_low(found, losses)
    words = (
        f"Over the first tenth of the run (to step {curve.steps[places[-1]]}) the loss moved by a factor {np.exp(found[0]):.3g}, "
        f"{'as curves do' if fires else 'which is not how curves move'} whose rate is too low"
    )
    return evidence(curve, places[-1:], total, _ABOVE, fires=fires, symptom=words, **dict(zip(FEATURES, found, strict=True)))


def can_be_too_low(found: np.ndarray, losses: np.ndarray) -> bool:
    """Whether a curve with these features and first losses may have too low a rate: finite, below its start, without a jump."""
    named = dict(zip(FEATURES, found, strict=True))
    first = jump(losses)
    return bool(named["non_finite"] == 0.0 and named["total"] < 0.0) and (first is None or not first.is_one)
