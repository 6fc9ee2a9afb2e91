"""Detector of steps that take longer and longer, because the training gathers up something that it goes through."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.contention_free import contention_free, run_queue_time
from perfnb.analyses.sampled_steps import rate_in_steps
from perfnb.analyses.trend import spearman, trend
from perfnb.detector import Unmeasured, detector, example

_FEWEST_STEPS: Final = 300  # recorded: in 3 of 10 controls CPU per step grew 15 to 39 % within 150 steps, as neighbours came
_LEAST_RISE: Final = 0.20  # of the first step; a prior, above which those controls lay only in fewer steps
_LEAST_Z: Final = 4.0  # Mann-Kendall, corrected for neighbours that are alike; design of the leak test
_LARGEST_PRESSURE: Final = 0.5  # rank correlation with how busy the host is; a prior
_LEAST_BUSIER: Final = 0.1  # from the first quarter to the last: a mean over 10 s creeps along in any quiet run; a prior
_BUSY: Final = ("pressure_cpu_share", "cpu_share")  # tasks wait for a core; cores at work: neighbours take caches before cores
_WINDOWS: Final = 20  # means over so many stretches are held against pressure: samples come once a second
_QUARTERS: Final = 4

_COUNT: Final = 320


def _tables(grown_us: int, *, until: int = _COUNT, runqueue: bool = False, ranks: int = 1) -> dict[str, str]:
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
    own = own[own["own_us"].notna()]
    count = int(own.groupby("rank").size().max())
    if count < _FEWEST_STEPS:
        message = f"{count} steps, needs {_FEWEST_STEPS}"
        raise Unmeasured(message)
    waited = own.merge(run_queue_time(ledger, phases), on=["rank", "step"], how="left")["runqueue_us"].to_numpy(dtype="float64")
    found = []
    for rank in own["rank"].unique():
        is_mine = own["rank"].eq(rank).to_numpy()
        mine = own[is_mine]
        start, rise = _growth(mine["own_us"].to_numpy())
        if rise and not _is_of_pressure(mine, waited[is_mine], host_samples):
            lost = np.minimum(np.linspace(0.0, rise, len(mine)), mine["own_us"])
            found.append(mine.assign(lost_us=lost, first_us=start, last_us=start + rise))
    wanted = ["rank", "step", "lost_us", "own_us", "first_us", "last_us"]
    return pd.concat(found)[wanted] if found else own.assign(lost_us=0.0, first_us=math.nan, last_us=math.nan).iloc[:0][wanted]


def _growth(own: NDArray[np.float64]) -> tuple[float, float]:
    """Contention-free time at the beginning, and by how much it rises to the end; no rise where the steps do not grow."""
    if len(own) < _FEWEST_STEPS:
        return 0.0, 0.0
    found = trend(own)
    rise = found.slope * (len(own) - 1)
    start = float(np.median(own - found.slope * np.arange(len(own))))
    quarters = [float(np.median(each)) for each in np.array_split(own, _QUARTERS)]
    grows = found.z > _LEAST_Z and all(after > before for before, after in zip(quarters, quarters[1:], strict=False))
    return (start, rise) if grows and start > 0 and rise >= _LEAST_RISE * start else (0.0, 0.0)


def _is_of_pressure(own: pd.DataFrame, waited: NDArray[np.float64], samples: pd.DataFrame | None) -> bool:
    """Whether steps became longer as the host became busier: by its samples, or by the training's own waiting for a core."""
    signals = [] if samples is None else [rate_in_steps(own, samples, name) for name in _BUSY]
    return any(_explains(each, own["own_us"].to_numpy()) for each in (*signals, waited / own["duration_us"].to_numpy()))


def _explains(busy: NDArray[np.float64], own: NDArray[np.float64]) -> bool:
    known = ~np.isnan(busy)
    if known.sum() < _WINDOWS:
        return False
    windows = np.array_split(np.flatnonzero(known), _WINDOWS)
    means = [float(busy[each].mean()) for each in windows]
    quarter = _WINDOWS // _QUARTERS
    became_busier = np.mean(means[-quarter:]) - np.mean(means[:quarter]) >= _LEAST_BUSIER
    return bool(became_busier and spearman(means, [float(np.median(own[each])) for each in windows]) >= _LARGEST_PRESSURE)
