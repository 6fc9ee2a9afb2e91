"""Detector of single steps that take many times as long as the others, at no regular place."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.contention_free import contention_free
from perfnb.analyses.outliers import far_above, irregular
from perfnb.detector import Unmeasured, detector, example

_FEWEST_OUTLIERS: Final = 3
_FEWEST_STEPS: Final = 50  # 3 of them are 6 %: more of fewer steps are a second kind of step; a prior
_LARGEST_WAIT: Final = 0.25  # of a step for a core: threads that spin meanwhile took 4 times their CPU in a recorded control
_COUNT: Final = 101


def _tables(
    long: dict[int, int], *, ranks: int = 1, waiting_share: float = 0.0, epoch: int = _COUNT, phase: str = "other"
) -> dict[str, Any]:
    """101 steps of 1 ms, of which the first is left out, and so much longer ones: by themselves, or waiting for a core."""
    steps, phases = ["rank step start_us duration_us epoch"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    for rank in range(ranks):
        start = 0
        for step in range(_COUNT):
            more = long.get(step, 0)
            steps.append(f"{rank} {step} {start} {1000 + more} {step // epoch}")
            waiting = round(waiting_share * more)
            phases.append(f"{rank} {step} forward 1000 1000 0 0\n{rank} {step} {phase} {more} 0 {waiting} {more - waiting}")
            start += 1000 + more
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


_THREE: Final = {12: 5000, 40: 5000, 77: 5000}


@detector(
    family="over time",
    title="Single steps far longer than the others",
    tier=2,
    injected_by="random_pause",
    source="a prior: 8 median absolute deviations and half as long again as the median; 3 steps, since one or two are warm-up",
    not_to_confuse_with=("growing_step_time", "regressed_step_time", "cpu_contention", "checkpoint_stall"),
    recorded_only_when="the detection benchmark stops 2 % of the steps for twenty steps' time",
    examples=(
        example("three of 100 steps of two ranks stop for 5 ms", lost_share=15 / 115, **_tables(_THREE, ranks=2)),
        example("two are not enough", lost_share=0.0, **_tables({12: 5000, 40: 5000})),
        example("steps of 1.5 times the median are not far out", lost_share=0.0, **_tables(dict.fromkeys(_THREE, 500))),
        example(
            "steps of 1.6 times the median are, but take little", lost_share=1.8 / 101.8, **_tables(dict.fromkeys(_THREE, 600))
        ),
        example(
            "every 20th step: a log, a save, an evaluation", lost_share=0.0, **_tables(dict.fromkeys(range(7, 100, 20), 5000))
        ),
        example("the first step of each epoch", lost_share=0.0, **_tables(dict.fromkeys(range(25, 101, 25), 5000), epoch=25)),
        example("three evaluations between the steps", lost_share=0.0, **_tables(_THREE, phase="inference")),
        example("waiting for a core", lost_share=0.0, **_tables(_THREE, waiting_share=1.0)),
        example(
            "steps of 6 ms that waited 1.6 ms for a core: others' load", lost_share=0.0, **_tables(_THREE, waiting_share=0.32)
        ),
    ),
)
def outlier_steps(steps: pd.DataFrame, ledger: pd.DataFrame, phases: pd.DataFrame | None = None) -> pd.DataFrame:
    """Time that single steps take over the median, where they are far longer and come at no regular place.

    Steps are held against one another by their contention-free time: above the median by 8 median absolute deviations, and
    more than half as long again. Steps that waited much for a core are left out, since threads that spin meanwhile take CPU
    time, and so are those that come every k-th step, or at an epoch's edge: logs, saves and evaluations; forward passes without
    gradients, of which it is known what they are, count nowhere. What another detector claims of those steps is that one's. It
    matters because a few such steps can take more time than all slow ones together. It cannot see what stopped the step, nor
    tell it where all steps scatter widely.
    """
    own = contention_free(steps, ledger, phases)
    if own["own_us"].isna().all():
        message = "schedstat absent: waiting for a core cannot be told from a longer step"
        raise Unmeasured(message)
    own = own[own["own_us"].notna()]
    count = int(own.groupby("rank").size().max())
    if count < _FEWEST_STEPS:
        message = f"{count} steps, needs {_FEWEST_STEPS}"
        raise Unmeasured(message)
    own = own.assign(is_calm=own["own_us"].ge((1.0 - _LARGEST_WAIT) * own["duration_us"]))
    own = own.assign(own_us=own["own_us"] - _inference_us(ledger, own))
    found = [_outliers(own[own["rank"].eq(rank)]) for rank in own["rank"].unique()]
    return pd.concat(found)[["rank", "step", "lost_us", "own_us", "median_us"]]


def _inference_us(ledger: pd.DataFrame, own: pd.DataFrame) -> NDArray[np.float64]:
    """What forward passes without gradients take of each step's own time."""
    parts = ledger[ledger["part"].isin([f"inference.{kind}" for kind in ("cpu", "blocked")])]
    taken = parts.groupby(["rank", "step"])["time_us"].sum()
    found: NDArray[np.float64] = taken.reindex(pd.MultiIndex.from_frame(own[["rank", "step"]]), fill_value=0.0).to_numpy()
    return found


def _outliers(own: pd.DataFrame) -> pd.DataFrame:
    times = own["own_us"].to_numpy()
    epoch = own["epoch"].to_numpy(dtype="float64", na_value=-1.0)
    turns = epoch[1:] != epoch[:-1]
    edges = np.append(False, turns), np.append(turns, False)
    left = irregular(own["step"].to_numpy(), far_above(times), edges) & own["is_calm"].to_numpy()
    if left.sum() < _FEWEST_OUTLIERS:
        left = np.zeros_like(left)
    median = float(np.median(times))
    found: pd.DataFrame = own.assign(lost_us=times - median, median_us=median)[left]
    return found
