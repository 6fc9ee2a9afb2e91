"""What simpler ways would have said of the same changes, from the same run before: rivals of the models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from benchmarks.prediction.stored import StoredPair
from perfnb.ledger import steady_steps
from perfnb.run import Run
from perfnb.verify import step_durations

FIXED_GAINS: Final = (0.15, 0.20, 0.25)
_UNKNOWN: Final = float("nan")
_COMPUTE: Final = ("forward", "backward")
_LOADER: Final = frozenset({"num_workers", "prefetch_factor", "in_order", "cache_samples", "persistent_workers"})
_POINTS: Final = 3


def baselines(pair: StoredPair) -> dict[str, float]:
    """Microseconds of the step after, by each baseline; NaN where it has no answer.

    ============== =================================================================================================
    no_change      the step of the run before
    naive          the step less the span that the change is about, or scaled in proportion; see `_NAIVE`
    bound          max(work / workers, consumer, cpu / cores): what DS-Analyzer and Plumber reason by; loader knobs only
    line           a line through the steps of three batch sizes (DeepView's method); the batch size only
    fixed_15 .. 25 the step less a fixed share, as rules of thumb promise
    ============== =================================================================================================
    """
    now = float(step_durations(pair.run).mean())
    found = {
        "no_change": now,
        "naive": _naive(pair, now),
        "bound": _bound(pair),
        "line": _line(pair, now),
    }
    return found | {f"fixed_{gain * 100:.0f}": now * (1.0 - gain) for gain in FIXED_GAINS}


def phase_us(run: Run, names: tuple[str, ...], column: str = "wall_us") -> float:
    """Mean time of a steady step in some phases, over ranks."""
    steps = steady_steps(run)[["rank", "step"]]
    rows = run.phases.merge(steps, on=["rank", "step"])
    total = float(rows.loc[rows["phase"].astype(object).isin(names), column].sum())
    return total / max(len(steps), 1)


def _naive(pair: StoredPair, now: float) -> float:
    """All spans of a change of several knobs are taken off together: shares are added."""
    step = now
    for knob, after in pair.case.changes.items():
        rule = _NAIVE.get(knob)
        if rule is None:
            return _UNKNOWN
        step -= now - rule(pair.run, now, pair.config[knob], after)
    return step if step > 0 else _UNKNOWN


def _without_loading(run: Run, now: float, _: Any, after: Any) -> float:
    return now - phase_us(run, ("data",)) if after != 0 else _UNKNOWN


def _rarer(run: Run, now: float, before: float, after: float) -> float:
    return now - phase_us(run, ("other",)) * (1.0 - before / after)


def _without_other(run: Run, now: float, _: Any, __: Any) -> float:
    return now - phase_us(run, ("other",))


def _without_garbage(run: Run, now: float, _: Any, __: Any) -> float:
    pauses = run.host_ops[run.host_ops["category"].eq("gc")]
    return now - float(pauses["duration_us"].sum()) / max(len(run.steps), 1)


def _threads(run: Run, now: float, before: float, after: float) -> float:
    cores = run.machine.cpu_capacity or math.inf
    return now - phase_us(run, (*_COMPUTE, "optimizer")) * (1.0 - min(before, cores) / min(after, cores))


def _half_compute(run: Run, now: float, _: Any, __: Any) -> float:
    return now - phase_us(run, _COMPUTE) / 2.0


def _without_optimizer(run: Run, now: float, _: Any, __: Any) -> float:
    return now - phase_us(run, ("optimizer",))


def _in_proportion(_: Run, now: float, before: float, after: float) -> float:
    return now * after / before


def _half_communication(run: Run, now: float, _: Any, __: Any) -> float:
    return now - phase_us(run, ("communication",)) / 2.0


def _without_communication(run: Run, now: float, _: Any, __: Any) -> float:
    return now - phase_us(run, ("communication",))


_NAIVE: Final[Mapping[str, Callable[[Run, float, Any, Any], float]]] = MappingProxyType(
    {
        **dict.fromkeys(_LOADER, _without_loading),
        "log_every_n_steps": _rarer,
        "checkpoint_every_n_steps": _rarer,
        "async_checkpoint": _without_other,
        "gc_freeze": _without_garbage,
        "torch_num_threads": _threads,
        "precision": _half_compute,
        "optimizer_implementation": _without_optimizer,
        "batch_size": _in_proportion,
        "gradient_accumulation_steps": _in_proportion,
        "gradient_compression": _half_communication,
        "bucket_cap_mb": _without_communication,
        "balance_batches": _without_communication,
        "sync_every_micro_batch": _without_communication,
    }
)


def _bound(pair: StoredPair) -> float:
    if not set(pair.case.changes) <= _LOADER:
        return _UNKNOWN
    config = {**pair.config, **pair.case.changes}
    workers = int(config["num_workers"])
    step_cpu = phase_us(pair.run, (*_COMPUTE, "optimizer", "other"), "cpu_us")
    consumer = phase_us(pair.run, (*_COMPUTE, "optimizer", "other"))
    work, cpu = (0.0, 0.0) if config["cache_samples"] == "memory" else _batch(pair)
    if math.isnan(work):
        return _UNKNOWN
    if workers == 0:
        return work + consumer
    cores = pair.run.machine.cpu_capacity or math.inf
    return max(work / workers, consumer, (cpu + step_cpu) / cores)


def _batch(pair: StoredPair) -> tuple[float, float]:
    """Wall and CPU time of a batch in the loader: of the run without workers, else of the probe."""
    if pair.config["num_workers"] == 0:
        return phase_us(pair.run, ("data",)), phase_us(pair.run, ("data",), "cpu_us")
    samples = pair.run.loader_samples
    if samples.empty:
        return _UNKNOWN, _UNKNOWN
    sums = samples.groupby("batch")[["wall_us", "cpu_us"]].sum().mean()
    return float(sums["wall_us"]), float(sums["cpu_us"])


def _line(pair: StoredPair, now: float) -> float:
    if set(pair.case.changes) != {"batch_size"}:
        return _UNKNOWN
    sizes = [float(size) for size in pair.told["earlier"]] + [float(pair.config["batch_size"])]
    times = [float(step_durations(run).mean()) for run in pair.run.earlier] + [now]
    if len(sizes) < _POINTS:
        return _UNKNOWN
    slope, offset = np.polyfit(sizes, times, 1)
    return float(offset + slope * pair.case.changes["batch_size"])
