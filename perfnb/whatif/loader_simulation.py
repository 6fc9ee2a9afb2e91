"""The loader of a model simulated: which batches it loads, of the run or of a probe, and the time of each step that results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from perfnb.bootstrap import resamples
from perfnb.whatif.cold_work import Cooling
from perfnb.whatif.loader_epochs import epoch_start_us
from perfnb.whatif.loader_settings import DEFAULT_PREFETCH
from perfnb.whatif.loader_together import Loading, Simulation, Work
from perfnb.whatif.prepared import prepared
from perfnb.whatif.rank_model import RankModel
from perfnb.whatif.shared_cores import Actor

if TYPE_CHECKING:
    from perfnb.whatif.loader_probed import ProbedLoader
    from perfnb.whatif.model import StepModel

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

AFTER_WAIT: Final = "work after a wait"
"""Name of the estimate: its time over that without the wait."""

_COSTS: Final = ("put_us", "get_us", "pin_us", "fork_us", "init_us")

MOST_PROBED: Final = 256
"""Batches of a probe that one simulation runs through, scaled to the mean of all; a choice: a slider's answer stays quick."""


def loaded_steps_us(
    model: StepModel, rank: RankModel, rows: Rows, work: Floats | Callable[[], Actor], values: Mapping[str, float]
) -> Simulation[Floats]:
    """Time of each step of one rank, its batches loaded as the model's loader does.

    Parameters
    ----------
    model
        The edited model.
    rank
        The rank.
    rows
        Steady steps to run, in their order.
    work
        The training loop: waiting and computing of each of these steps, shape (steps, 2); or what makes it as a generator.
    values
        The model's estimates, by name.
    """
    loader = model.loader
    is_simulated = loader.is_simulated(model.workers, model.recorded_workers)
    workers = model.workers if is_simulated else 0
    starts = _first_batches(model, rank)
    counts = np.diff(starts)[rows]
    source = _source(model, rank) if is_simulated and not model.is_cached else None
    if source is None:
        made = prepared(model, "batches", rank, values, lambda: _recorded_batches(model, rank, values))
        batches = made[np.arange(counts.sum()) + np.repeat(starts[rows] - (np.cumsum(counts) - counts), counts)]
    else:
        if not callable(work) and loader.micro_batches > 1:
            counts = np.full(len(counts), loader.micro_batches)
            work = np.repeat(work / loader.micro_batches, loader.micro_batches, axis=0)
        batches = _probed_batches(source, int(counts.sum()), rows, _factor(model, rank))
    constants = {name: _constant(model, name, values) for name in _COSTS}
    if workers and constants["put_us"]:
        batches = np.add(batches, [0.0, constants["put_us"]])
    taking = constants["get_us"] if workers else 0.0
    spacings = yield Loading(
        batches,
        work if callable(work) else _work(model, rank, rows, work, values, taking_us=taking, is_beside=workers > 0),
        workers=workers,
        prefetch=loader.prefetch or DEFAULT_PREFETCH,
        cores=model.cores,
        foreign=loader.foreign,
        in_order=loader.in_order,
        threads=values.get("threads", 1.0),
        get_us=constants["get_us"],
        pin_us=constants["pin_us"] if loader.is_pinned and workers else None,
    )
    ends = np.cumsum(counts)
    steps_us: Floats = np.add.reduceat(spacings.reshape(-1, int(ends[-1])), ends - counts, axis=1).ravel()
    if workers and loader.starts_per_step:
        start = prepared(model, "epoch start", rank, values, lambda: epoch_start_us(model, rank, values, constants))
        steps_us = steps_us + loader.starts_per_step * start
    return steps_us


def loading_us(model: StepModel, rank: RankModel, rows: Rows, values: Mapping[str, float]) -> Floats:
    """Time of loading in each step where nothing of it overlaps with the training loop."""
    return prepared(model, "loading", rank, values, lambda: _recorded_loading_us(model, rank, values))[rows]


def cooling_of(model: StepModel, values: Mapping[str, float]) -> Cooling | None:
    """What waiting costs the work after it, as a probe of the loader found; None where none did."""
    probe, ratio = model.loader.probe, values.get(AFTER_WAIT, 1.0)
    wait_us = 0.0 if probe is None else probe.constants.get("after_wait_us", 0.0)
    return Cooling(ratio, wait_us) if ratio > 1.0 and wait_us > 0.0 else None


def waited_us(model: StepModel, rank: RankModel, rows: Rows) -> Floats:
    """How long each step waited for its data when it was recorded, without computing for it."""

    def waited() -> Floats:
        return np.array([math.fsum(each.wait_us for each in step) for step in rank.batches])

    return prepared(model, "waited", rank, {}, waited)[rows]


def _work(
    model: StepModel,
    rank: RankModel,
    rows: Rows,
    times_us: Floats,
    values: Mapping[str, float],
    *,
    taking_us: float,
    is_beside: bool,
) -> Work:
    """The training loop with what waiting costs it; `is_beside`: workers load for it."""
    cooling = cooling_of(model, values)
    if cooling is None:
        return Work(times_us)
    parts = len(times_us) // len(rows)
    recorded = np.repeat(waited_us(model, rank, rows) / parts, parts)
    share = 1.0 if is_beside or model.loader.probe is None else 1.0 - model.loader.probe.cpu_share
    return Work(times_us, cooling, recorded, taking_us, share)


def _first_batches(model: StepModel, rank: RankModel) -> Rows:
    """Where each step's batches begin among all of them, and where the last one's end."""
    return prepared(model, "first batches", rank, {}, lambda: np.cumsum([0, *map(len, rank.batches)]))


def _recorded_batches(model: StepModel, rank: RankModel, values: Mapping[str, float]) -> Floats:
    """Waiting and computing of each batch of the run; shape (batches, 2).

    Of what may be either, the estimate `cpu_share` is taken for computing; of a cached batch collating alone is left.
    """
    times = math.prod(model.loading.values())
    if model.is_cached:
        return np.tile([0.0, times * values.get(f"collate_{rank.rank}", 0.0)], (sum(map(len, rank.batches)), 1))
    share = values.get("cpu_share", 0.0)
    rows = [
        (each.wait_us + (1.0 - share) * each.unknown_us, each.cpu_us + share * each.unknown_us)
        for step in rank.batches
        for each in step
    ]
    found: Floats = np.maximum(times * np.array(rows, dtype=float).reshape(-1, 2), 0.0)
    return found


def _recorded_loading_us(model: StepModel, rank: RankModel, values: Mapping[str, float]) -> Floats:
    steps = np.repeat(np.arange(len(rank.batches)), np.diff(_first_batches(model, rank)))
    batches = prepared(model, "batches", rank, values, lambda: _recorded_batches(model, rank, values))
    return np.bincount(steps, weights=batches.sum(axis=1), minlength=len(rank.batches)).astype(float)


def _source(model: StepModel, rank: RankModel) -> ProbedLoader | None:
    """The probe whose batches are loaded; None where the run's own are.

    A run without workers has its batches in their own order: they stand where there are as many as the probe has.
    """
    loader = model.loader
    if loader.moved is not None or loader.probe is None or model.recorded_workers:
        return loader.moved or loader.probe
    own = sum(len(step) for step in rank.batches) * loader.micro_batches
    return loader.probe if len(loader.probe.times) > own else None


def _factor(model: StepModel, rank: RankModel) -> float:
    scale = 1.0 if model.loader.moved is not None else model.loader.scale.get(rank.rank, 1.0)
    return scale * math.prod(model.loading.values())


def _probed_batches(probe: ProbedLoader, per_round: int, rows: Rows, factor: float) -> Floats:
    """Whole rounds of the steps' batches out of a probe, in its order; resampled in blocks where the steps are.

    The scale keeps the mean of all of the probe's batches, or of all that were drawn, whatever share of them is run through.
    Waiting and computing of each; shape (batches, 2).
    """
    times = probe.times
    if (rows != np.arange(len(rows))).any():  # a bootstrap draw; the same steps drawn give the same batches
        seed = int(np.dot(rows, np.arange(1, len(rows) + 1))) % (1 << 32)
        times = times[resamples(len(times), 1, block=max(8, round(len(times) ** (1 / 3))), seed=seed)[0]]
    rounds = max(1, min(math.ceil(len(times) / per_round), MOST_PROBED // per_round))
    used = np.resize(np.arange(len(times)), per_round * rounds)
    both = np.stack([times[:, 0] + times[:, 2], times[:, 1] + times[:, 3]], axis=1)
    mean = float(both[used].sum(axis=1).mean())
    factor *= float(both.sum(axis=1).mean()) / mean if mean else 1.0
    found: Floats = factor * both[used]
    return found


def _constant(model: StepModel, name: str, values: Mapping[str, float]) -> float:
    """A constant of the worker: the estimate that a change brought in, else the probe's, which the unchanged model has too."""
    if name in values:
        return values[name]
    return model.loader.costs.get(name, 0.0)
