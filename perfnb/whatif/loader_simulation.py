"""The loader of a model simulated: which batches it loads, of the run or of a probe, and the time of each step that results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from perfnb.bootstrap import resamples
from perfnb.whatif.cold_work import Cooling, cooling_loop
from perfnb.whatif.loader_epochs import epoch_start_us
from perfnb.whatif.loader_queue import Consumer, steady_spacings_us
from perfnb.whatif.loader_settings import DEFAULT_PREFETCH
from perfnb.whatif.loader_terms import Phases
from perfnb.whatif.prepared import per_step
from perfnb.whatif.rank_model import RankModel, Time

if TYPE_CHECKING:
    from perfnb.whatif.loader_probed import ProbedLoader
    from perfnb.whatif.model import StepModel

Floats = NDArray[np.float64]

AFTER_WAIT: Final = "work after a wait"
"""Name of the estimate: its time over that without the wait."""

_COSTS: Final = ("put_us", "get_us", "pin_us", "fork_us", "init_us")

MOST_PROBED: Final = 256
"""Batches of a probe that one simulation runs through, scaled to the mean of all; a choice: a slider's answer stays quick."""


def loaded_steps_us(
    model: StepModel, rank: RankModel, rows: Sequence[int], consumer: Consumer, values: Mapping[str, float]
) -> Floats:
    """Time of each step of one rank, its batches loaded as the model's loader does.

    Parameters
    ----------
    model
        The edited model.
    rank
        The rank.
    rows
        Steady steps to run, in their order.
    consumer
        The training loop: per step its phases, or a generator.
    values
        The model's estimates, by name.
    """
    loader = model.loader
    is_simulated = loader.is_simulated(model.workers, model.recorded_workers)
    workers = model.workers if is_simulated else 0
    counts = [len(rank.batches[row]) for row in rows]
    source = _source(model, rank) if is_simulated and not model.is_cached else None
    if source is None:
        made = per_step(model, "batches", rank, values, lambda: _recorded_batches(model, rank, values))
        batches = [each for row in rows for each in made[row]]
    else:
        if not callable(consumer) and loader.micro_batches > 1:
            counts = [loader.micro_batches] * len(counts)
            consumer = [_part(step, loader.micro_batches) for step in consumer for _ in range(loader.micro_batches)]
        batches = _probed_batches(source, sum(counts), rows, _factor(model, rank))
    constants = {name: _constant(model, name, values) for name in _COSTS}
    cooling = cooling_of(model, values)
    if cooling is not None and not callable(consumer):
        parts = len(consumer) // len(rows)
        recorded = [waited / parts for waited in waited_us(rank, rows) for _ in range(parts)]
        share = 1.0 if workers or model.loader.probe is None else 1.0 - model.loader.probe.cpu_share
        taking = constants["get_us"] if workers else 0.0
        consumer = cooling_loop(consumer, recorded, cooling, taking_us=taking, share=share)
    if workers and constants["put_us"]:
        batches = [(*batch, ("cpu", constants["put_us"])) for batch in batches]
    spacings = steady_spacings_us(
        batches,
        consumer,
        workers=workers,
        prefetch=loader.prefetch or DEFAULT_PREFETCH,
        cores=model.cores,
        foreign=loader.foreign,
        in_order=loader.in_order,
        threads=values.get("threads", 1.0),
        get_us=constants["get_us"],
        pin_us=constants["pin_us"] if loader.is_pinned and workers else None,
    )
    starts = [0, *accumulate(counts)][:-1]
    rounds = np.array(spacings).reshape(-1, sum(counts))
    steps_us: Floats = np.add.reduceat(rounds, starts, axis=1).ravel()
    if workers and loader.starts_per_step:
        steps_us = steps_us + loader.starts_per_step * epoch_start_us(model, rank, values, constants)
    return steps_us


def loading_us(model: StepModel, rank: RankModel, rows: Sequence[int], values: Mapping[str, float]) -> Floats:
    """Time of loading in each step where nothing of it overlaps with the training loop."""
    made = per_step(model, "batches", rank, values, lambda: _recorded_batches(model, rank, values))
    return np.array([sum(amount for batch in made[row] for _, amount in batch) for row in rows])


def cooling_of(model: StepModel, values: Mapping[str, float]) -> Cooling | None:
    """What waiting costs the work after it, as a probe of the loader found; None where none did."""
    probe, ratio = model.loader.probe, values.get(AFTER_WAIT, 1.0)
    if probe is None or ratio <= 1.0:
        return None
    return Cooling(ratio, probe.constants["after_wait_us"])


def waited_us(rank: RankModel, rows: Sequence[int]) -> list[float]:
    """How long each step waited for its data when it was recorded, without computing for it."""
    return [math.fsum(each.wait_us for each in rank.batches[row]) for row in rows]


def phases_of(time: Time, cpu_share: float) -> Phases:
    """Phases of an amount of time; `cpu_share` of what may be waiting or computing is taken for computing."""
    wait = time.wait_us + (1.0 - cpu_share) * time.unknown_us
    cpu = time.cpu_us + cpu_share * time.unknown_us
    return tuple((kind, amount) for kind, amount in (("wait", wait), ("cpu", cpu)) if amount > 0.0)


def _recorded_batches(model: StepModel, rank: RankModel, values: Mapping[str, float]) -> list[list[Phases]]:
    return [[_batch(model, rank, each, values) for each in step] for step in rank.batches]


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


def _probed_batches(probe: ProbedLoader, per_round: int, rows: Sequence[int], factor: float) -> list[Phases]:
    """Whole rounds of the steps' batches out of a probe, in its order; resampled in blocks where the steps are.

    The scale keeps the mean of all of the probe's batches, or of all that were drawn, whatever share of them is run through.
    """
    times = probe.times
    if list(rows) != list(range(len(rows))):  # a bootstrap draw; the same steps drawn give the same batches
        seed = int(np.dot(rows, np.arange(1, len(rows) + 1))) % (1 << 32)
        times = times[resamples(len(times), 1, block=max(8, round(len(times) ** (1 / 3))), seed=seed)[0]]
    rounds = max(1, min(math.ceil(len(times) / per_round), MOST_PROBED // per_round))
    used = np.resize(np.arange(len(times)), per_round * rounds)
    waits, cpu = times[:, 0] + times[:, 2], times[:, 1] + times[:, 3]
    mean = float((waits + cpu)[used].mean())
    factor *= float((waits + cpu).mean()) / mean if mean else 1.0
    return [
        tuple((kind, factor * amount) for kind, amount in (("wait", wait), ("cpu", busy)) if amount > 0.0)
        for wait, busy in zip(waits[used].tolist(), cpu[used].tolist(), strict=True)
    ]


def _batch(model: StepModel, rank: RankModel, recorded: Time, values: Mapping[str, float]) -> Phases:
    times = math.prod(model.loading.values())
    if model.is_cached:
        collate = values.get(f"collate_{rank.rank}", 0.0)
        return (("cpu", times * collate),) if collate else ()
    return phases_of(
        Time(times * recorded.wait_us, times * recorded.cpu_us, times * recorded.unknown_us), values.get("cpu_share", 0.0)
    )


def _part(phases: Phases, parts: int) -> Phases:
    return tuple((kind, amount / parts) for kind, amount in phases)


def _constant(model: StepModel, name: str, values: Mapping[str, float]) -> float:
    """A constant of the worker: the estimate that a change brought in, else the probe's, which the unchanged model has too."""
    if name in values:
        return values[name]
    return model.loader.costs.get(name, 0.0)
