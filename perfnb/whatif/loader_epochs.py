"""What the start of an epoch adds to a step: processes to start, and the first batch, which nothing was loaded ahead of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from perfnb.whatif.loader_queue import simulate, steady_step_us
from perfnb.whatif.loader_settings import DEFAULT_PREFETCH
from perfnb.whatif.loader_terms import Phases
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfnb.whatif.model import StepModel
    from perfnb.whatif.rank_model import RankModel

START: Final = "time to start an epoch"
START_FACTOR: Final = Estimate(1.0, 0.8, 1.2)
"""A prior (whatif contract, section 7): the start of an epoch is known to a fifth of it."""

_ROUNDS: Final = 4


def starts_per_step(model: StepModel) -> float:
    """Share of the steady steps that begin an epoch; 0 where the run does not tell of epochs."""
    rank = model.measured.ranks[0].rank
    steps = model.run.steps[model.run.steps["rank"].eq(rank)].sort_values("start_us")
    begins = steps["epoch"].diff().fillna(0).ne(0)
    numbers = set(model.measured.numbers)
    return float(sum(step in numbers for step in steps.loc[begins, "step"])) / len(numbers)


def is_persistent(model: StepModel) -> bool:
    """Whether workers outlive an epoch after the changes."""
    return model.loader.recorded_persistent if model.persistent_workers is None else model.persistent_workers


def epoch_start_us(model: StepModel, rank: RankModel, values: Mapping[str, float], costs: Mapping[str, float]) -> float:
    """Time that the start of an epoch takes beyond a steady step: simulated from the first process on with mean batches.

    Parameters
    ----------
    model, rank
        The edited model and its rank.
    values
        The model's estimates, by name.
    costs
        `put_us`, `get_us`, `fork_us`, `init_us` of a worker.
    """
    batch = mean_batch(model, rank, costs["put_us"])
    loop = mean_loop(model, rank)
    prefetch = model.loader.prefetch or DEFAULT_PREFETCH
    options: dict[str, Any] = {
        "cores": model.cores,
        "foreign": model.loader.foreign,
        "threads": values.get("threads", 1.0),
        "get_us": costs["get_us"],
    }
    count = _ROUNDS * model.workers * prefetch
    start: dict[str, Any] = {} if is_persistent(model) else {"fork_us": costs["fork_us"], "init_us": costs["init_us"]}
    end = simulate([batch] * count, [loop], workers=model.workers, prefetch=prefetch, **options, **start).end_us[-1]
    steady = steady_step_us([batch], [loop], workers=model.workers, prefetch=prefetch, **options)
    return values.get(START, 1.0) * max(end - count * steady, 0.0)


def mean_batch(model: StepModel, rank: RankModel, put_us: float) -> Phases:
    """The mean batch, as a probe found it or as the run has it."""
    probe = model.loader.moved or model.loader.probe
    times = math.prod(model.loading.values())
    if probe is not None:
        factor = times * (1.0 if model.loader.moved is not None else model.loader.scale.get(rank.rank, 1.0))
        wait, cpu = (factor * float(probe.times[:, columns].sum(axis=1).mean()) for columns in ([0, 2], [1, 3]))
    else:
        batches = [each for step in rank.batches for each in step]
        wait = times * math.fsum(each.wait_us + each.unknown_us for each in batches) / len(batches)
        cpu = times * math.fsum(each.cpu_us for each in batches) / len(batches)
    return tuple((kind, amount) for kind, amount in (("wait", wait), ("cpu", cpu + put_us)) if amount > 0.0)


def mean_loop(model: StepModel, rank: RankModel) -> Phases:
    """The mean step of the training loop outside its loader."""
    count, parts = len(rank.own), max(model.loader.micro_batches, 1)
    wait = math.fsum(each.wait_us for each in rank.own) / count / parts
    cpu = math.fsum(each.cpu_us + each.unknown_us for each in rank.own) / count / parts
    return tuple((kind, amount) for kind, amount in (("wait", wait), ("cpu", cpu)) if amount > 0.0)
