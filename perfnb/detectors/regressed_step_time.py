"""Detector of steps that take longer than in earlier runs of the same training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb import text
from perfnb.analyses.contention_free import contention_free
from perfnb.analyses.loader_stall import knob_or_none
from perfnb.bootstrap import resamples
from perfnb.detector import Unmeasured, detector, example
from perfnb.errors import PerfnbError
from perfnb.ledger import step_ledger, used_steps
from perfnb.run import Machine, Run

_LEAST_RATIO: Final = 1.05  # of medians: what most call a regression; a prior
_INTERVAL: Final = (0.025, 0.975)
_DRAWS: Final = 400
_FEWEST_STEPS: Final = 20  # of each run, for a median with an interval; a prior
_SAME: Final = ("batch_size", "device")  # another batch, or another device, is another step
_LONGEST: Final = 400

_COUNT: Final = 25


def _tables(mean_us: int, *, runqueue_us: int = 0, ranks: int = 1) -> dict[str, Any]:
    """25 steps that take so long, ten less and ten more in turn, and wait so long for a core besides."""
    steps, phases = ["rank step start_us duration_us"], ["rank step phase wall_us cpu_us runqueue_us blocked_us"]
    for rank in range(ranks):
        start = 0
        for step in range(_COUNT):
            own = mean_us + 10 * (step % 3 - 1)
            steps.append(f"{rank} {step} {start} {own + runqueue_us}")
            phases.append(f"{rank} {step} forward {own + runqueue_us} {own} {runqueue_us} 0")
            start += own + runqueue_us
    return {"steps": "\n".join(steps), "phases": "\n".join(phases)}


def _before(mean_us: int, config: Mapping[str, Any] | None = None, **more: Any) -> Run:
    return example("an earlier run", lost_share=0.0, config=config, **more, **_tables(mean_us)).run


@detector(
    family="over time",
    title="Steps longer than in earlier runs",
    tier=2,
    injected_by="earlier_run",
    source="a prior: the 95 % interval of the ratio of median steps lies above 1.05",
    not_to_confuse_with=("growing_step_time", "outlier_steps", "cpu_contention", "python_overhead"),
    recorded_only_when="the detection benchmark stores a healthy run before",
    examples=(
        example(
            "1000 us in two ranks, 800 before", lost_share=0.20, earlier=(_before(800), _before(800)), **_tables(1000, ranks=2)
        ),
        example("4 % longer than before", lost_share=0.0, earlier=(_before(960),), **_tables(1000)),
        example("one of two earlier runs was as slow", lost_share=0.0, earlier=(_before(800), _before(1000)), **_tables(1000)),
        example("only waiting for a core is new", lost_share=0.0, earlier=(_before(1000),), **_tables(1000, runqueue_us=500)),
        example(
            "a run with another batch does not count, the one with the same does",
            lost_share=0.20,
            config={"batch_size": 64},
            earlier=(_before(2000, {"data": {"batch_size": 128}}), _before(800, {"data": {"batch_size": 64}})),
            **_tables(1000),
        ),
    ),
)
def regressed_step_time(
    steps: pd.DataFrame,
    ledger: pd.DataFrame,
    earlier: tuple[Run, ...],
    config: Mapping[str, Any],
    machine: Machine,
    world_size: int | None,
    phases: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time that steps take more than in earlier runs of the same training on the same machine.

    Median contention-free steps are compared, with an interval over steps and over the earlier runs: runs differ among each
    other, and one is no measure of that. Earlier runs count that have as many ranks, the same accelerators and cores, the same
    clock, and no other batch size. It matters because what one change made slower is quickly undone while that change is known:
    the evidence names what differs in the configs. It cannot see changes of the code, nor tell them from a machine that became
    slower. Give the runs as `diagnose(run, earlier=[...])`.
    """
    if not earlier:
        message = "no earlier run to compare with: diagnose(run, earlier=[...])"
        raise Unmeasured(message)
    own = contention_free(steps, ledger, phases)
    now = own["own_us"].dropna().to_numpy()
    if len(now) < _FEWEST_STEPS:
        message = f"{len(now)} steps whose time is known, needs {_FEWEST_STEPS}"
        raise Unmeasured(message)
    on_device = ledger["clock"].eq("device").any()
    comparable = [
        each
        for each in earlier
        if each.world_size == world_size
        and (each.machine.devices, each.machine.cpu_capacity) == (machine.devices, machine.cpu_capacity)
        and each.is_device_job == on_device
        and _is_same(each.config, config)
    ]
    before = [(times, each) for each in comparable if len(times := _own_times(each)) >= _FEWEST_STEPS]
    if not before:
        message = (
            f"none of {text.count(len(earlier), 'earlier run')} compares: as many ranks, the same machine and batch size, "
            f"{_FEWEST_STEPS} steps whose time is known"
        )
        raise Unmeasured(message)
    wanted = ["rank", "step", "lost_us", "own_us", "before_us", "config_difference"]
    reference = float(np.median([np.median(times) for times, _ in before]))
    if _low_end([times for times, _ in before], now) <= _LEAST_RATIO:
        return own.assign(lost_us=0.0, before_us=reference, config_difference="").iloc[:0][wanted]
    lost = own["own_us"].fillna(0.0) * (1.0 - reference / float(np.median(now)))
    return own.assign(lost_us=lost, before_us=reference, config_difference=_difference(before[-1][1].config, config))[wanted]


def _is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two configs state no two values of what makes steps comparable, wherever in them it stands."""
    pairs = [(knob_or_none(before, name), knob_or_none(now, name)) for name in _SAME]
    return all(one is None or other is None or one == other for one, other in pairs)


def _own_times(run: Run) -> NDArray[np.float64]:
    """Contention-free times of an earlier run's used steps; none where it has none."""
    try:
        used = used_steps(run)
        ledger = step_ledger(run).merge(used[["rank", "step"]], on=["rank", "step"])
    except PerfnbError:
        return np.empty(0)
    phases = run.phases if "phases" in run.signals else None
    found: NDArray[np.float64] = contention_free(used, ledger, phases)["own_us"].dropna().to_numpy()
    return found


def _low_end(before: Sequence[NDArray[np.float64]], now: NDArray[np.float64]) -> float:
    """Low end of the interval of the ratio of medians: each draw takes one earlier run, and blocks of steps of both."""
    medians_now = np.median(now[resamples(len(now), _DRAWS)], axis=1)
    medians = [np.median(times[resamples(len(times), _DRAWS, seed=1)], axis=1) for times in before]
    chosen = np.random.default_rng(2).integers(0, len(medians), _DRAWS)
    references = np.stack(medians)[chosen, np.arange(_DRAWS)]
    return float(np.quantile(medians_now / references, _INTERVAL[0]))


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Knobs that differ, from the earlier run to this one."""
    names = sorted({*before, *now}, key=str)
    changed = [f"{name}: {before.get(name)!r} -> {now.get(name)!r}" for name in names if before.get(name) != now.get(name)]
    return text.clean("; ".join(changed), _LONGEST) or "none that is known"
