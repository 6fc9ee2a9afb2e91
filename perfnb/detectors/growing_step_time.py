"""Detector of steps that take longer and longer, because the training gathers up something that it goes through."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from perfnb.analyses.contention_free import contention_free
from perfnb.analyses.growth import FEWEST_STEPS, growth
from perfnb.detector import Unmeasured, detector, example

_COUNT: Final = 320


def _tables(grown_us: int, *, until: int = _COUNT, runqueue: bool = False, ranks: int = 1) -> dict[str, Any]:
    """Steps of 1 ms that take so much longer by the step `until`; by themselves, or waiting for a core."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    for rank in range(ranks):
        start = 0.0
        for step in range(_COUNT):
            more = grown_us * min(step, until) / until
            steps.append(f"{rank} {step} {start} {1000 + more}")
            waiting = more if runqueue else 0.0
            phases.append(f"{rank} {step} forward {1000 + more} {1000 + more - waiting} {waiting} 0")
            start += 1000 + more
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


def _pressure(grows: bool) -> str:  # noqa: FBT001 - one use each way, in examples
    rows = [f"0 {time * 20_000} {0.01 * time if grows else 0.1}" for time in range(30)]
    return "rank time_us pressure_cpu_share\n" + "\n".join(rows)


_GROWN: Final = sum(1000 * (step - 1) / 320 for step in range(1, 320)) / sum(1000 + 1000 * step / 320 for step in range(1, 320))
_LITTLE: Final = sum(190 * (step - 1) / 320 for step in range(1, 320)) / sum(1000 + 190 * step / 320 for step in range(1, 320))


@detector(
    family="over time",
    title="Steps that grow longer and longer",
    tier=2,
    injected_by="growing_list",
    source="priors: a rise of 20 % over 300 steps, Mann-Kendall z > 4; recorded controls drift 15 to 39 % within 150 steps",
    not_to_confuse_with=("outlier_steps", "regressed_step_time", "cpu_contention", "python_overhead"),
    recorded_only_when="the detection benchmark searches a list that grows",
    examples=(
        example("a step of 1 ms grows to 2 ms over 320 steps of two ranks", lost_share=_GROWN, **_tables(1000, ranks=2)),
        example("19 % over all steps are no rise to speak of", lost_share=0.0, **_tables(190)),
        example("only waiting for a core grows", lost_share=0.0, **_tables(1000, runqueue=True)),
        example("what grew in the first half stays as it is", lost_share=0.0, **_tables(1000, until=100)),
        example("as cores became short, steps grew", lost_share=0.0, host_samples=_pressure(grows=True), **_tables(1000)),
        example("cores are as short as before", lost_share=_GROWN, host_samples=_pressure(grows=False), **_tables(1000)),
    ),
)
def growing_step_time(
    steps: pd.DataFrame, ledger: pd.DataFrame, phases: pd.DataFrame | None = None, host_samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Time that steps take more than at the beginning, where they grow longer all along.

    Steps are held against one another by their contention-free time: the trend over at least 300 steps rises by 20 % or more,
    more than chance would have it, in each quarter over the one before, and not as the host became busier. The loss of each step
    is what the trend has over its beginning. It matters because such a training never gets through: a list that is searched,
    a graph that is kept, a log that is written anew. It cannot see what grows, nor a growth that comes in one leap.
    """
    own = contention_free(steps, ledger, phases)
    if own["own_us"].isna().all():
        message = "schedstat absent: a longer wait for a core cannot be told from a longer step"
        raise Unmeasured(message)
    count = int(own[own["own_us"].notna()].groupby("rank").size().max())
    if count < FEWEST_STEPS:
        message = f"{count} steps, needs {FEWEST_STEPS}"
        raise Unmeasured(message)
    return growth(steps, ledger, phases, host_samples).rename(columns={"grown_us": "lost_us"})
