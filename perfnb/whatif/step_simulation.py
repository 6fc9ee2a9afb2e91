"""The mean step of an edited model: each rank's loop simulated with its loader, the step ending with the slowest rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfnb.prediction import Unknown
from perfnb.whatif.device_edits import blends, edited_program, held_ends
from perfnb.whatif.device_phases import optimizer_us
from perfnb.whatif.known_parts import part_share
from perfnb.whatif.loader_simulation import cooling_of, loaded_steps_us, loading_us, waited_us
from perfnb.whatif.loader_together import Simulation, answered
from perfnb.whatif.phase_work import edited_times
from perfnb.whatif.prepared import prepared, unchanged
from perfnb.whatif.rank_model import RankModel, Time
from perfnb.whatif.segments import Program
from perfnb.whatif.trace_replay import spacings_alone_us, training_loop, uncrowded_loop

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Case = tuple[Sequence[int] | Rows, Mapping[str, float]]


def simulated_step_us(model: StepModel, rows: Sequence[int], chosen: Mapping[str, float]) -> float:
    """Mean step in microseconds.

    Parameters
    ----------
    model
        The edited model.
    rows
        Steady steps to run, in their order; bootstrap draws repeat some.
    chosen
        Value of each of the model's estimates that differs from its middle.
    """
    return simulated_steps_us(model, [(rows, chosen)])[0]


def simulated_steps_us(model: StepModel, cases: Sequence[Case]) -> list[float]:
    """Mean step of each case, in microseconds: many together take a fraction of the time of each by itself.

    Parameters
    ----------
    model
        The edited model.
    cases
        Rows and chosen values, as of `simulated_step_us`.
    """
    return answered([_mean_step_us(model, np.asarray(rows), chosen) for rows, chosen in cases])


def _mean_step_us(model: StepModel, rows: Rows, chosen: Mapping[str, float]) -> Simulation[float]:
    values = {name: estimate.value for name, estimate in model.estimates.items()} | dict(chosen)
    step = yield from _blended_us(model, rows, values)
    if "gain" in values:
        now = yield from _step_us(unchanged(model), rows, {}, frozenset())
        step = now + values["gain"] * (step - now)
    return step


def _blended_us(model: StepModel, rows: Rows, values: Mapping[str, float]) -> Simulation[float]:
    """Mean step where only a share of some edits of the trace holds: between the replays without them and with them."""
    names = blends(model.device_edits) if model.is_replayed else ()
    ends = held_ends(model.device_edits, values) if model.is_replayed else frozenset()
    total = 0.0
    for chosen in product((False, True), repeat=len(names)):
        weight = math.prod(values[name] if is_in else 1.0 - values[name] for name, is_in in zip(names, chosen, strict=True))
        if weight != 0.0:
            held = frozenset(name for name, is_in in zip(names, chosen, strict=True) if is_in)
            total += weight * (yield from _step_us(model, rows, values, held | ends))
    return total


def _step_us(model: StepModel, rows: Rows, values: Mapping[str, float], held: frozenset[str]) -> Simulation[float]:
    spacings: list[Floats] = []
    for rank in model.measured.ranks:
        spacings += [(yield from _rank_spacings(model, rank, rows, values, held))]
    longest = max(map(len, spacings))
    per_rank = np.stack([np.resize(each, longest) for each in spacings])
    with_peers = np.min([rank.peers_us[rows] for rank in model.measured.ranks], axis=0)
    work = per_rank.mean(axis=0) if model.is_balanced else per_rank.max(axis=0)
    added = 0.0 if model.traffic is None else model.traffic.added_us(rows.tolist(), values)
    return float(work.mean()) + (0.0 if model.is_replayed else float(with_peers.mean())) + added


def _rank_spacings(
    model: StepModel, rank: RankModel, rows: Rows, values: Mapping[str, float], held: frozenset[str]
) -> Simulation[Floats]:
    """Time of each step of one rank without what it waits for its peers (a replay contains its communication)."""
    if model.is_replayed and isinstance(rank.program, Program):
        program = edited_program(model.run, rank, model.device_edits, held) if model.device_edits else rank.program
        slower = values.get("host_factor", 1.0)
        if _is_alone(model, rank, rows):
            loading = loading_us(model, rank, rows, values).tolist()
            found = np.array(spacings_alone_us(program, rows.tolist(), loading, slower)) - rank.pause_us
        else:
            # one core each for the workers, the loop, a pinning thread, and what others take
            crowded = model.workers + 2.0 + model.loader.foreign > model.cores
            loop = (training_loop if crowded else uncrowded_loop)(program, rows.tolist(), slower)
            found = (yield from loaded_steps_us(model, rank, rows, loop, values)) - rank.pause_us
        found = found - np.resize(_parts_us(model, rank, rows, values), len(found)) if model.parts else found
        return _repeated(model, rank, rows, found)
    own = prepared(model, "work", rank, values, lambda: _own_work(model, rank, values))[rows]
    if not model.loader.is_simulated(model.workers, model.recorded_workers):
        own_us: Floats = _cooled(model, rank, rows, own, values).sum(axis=1)
        return own_us + loading_us(model, rank, rows, values)
    work = np.stack([own[:, 0], own[:, 1] + own[:, 2]], axis=1)
    return (yield from loaded_steps_us(model, rank, rows, np.maximum(work, 0.0), values))


def _own_work(model: StepModel, rank: RankModel, values: Mapping[str, float]) -> Floats:
    """Work of each steady step outside the loader: waiting, computing, and either; shape (steps, 3)."""
    removed = values.get("quiet", 0.0) * _logging_us(model, rank)
    work = edited_times(model, rank.rank, rank.own, values)
    left = [_without_parts(model, rank, row, _less(time, removed), values) for row, time in enumerate(work)]
    return np.array([(time.wait_us, time.cpu_us, time.unknown_us) for time in left], dtype=float).reshape(-1, 3)


def _cooled(model: StepModel, rank: RankModel, rows: Rows, own: Floats, values: Mapping[str, float]) -> Floats:
    """Work of steps that load for themselves, as long as it takes after the wait that is left: of a cached batch, none."""
    cooling = cooling_of(model, values)
    if cooling is None:
        return own
    left = 0.0 if model.is_cached else math.prod(model.loading.values())
    waited = waited_us(model, rank, rows)
    scales = cooling.factors(left * waited) / cooling.factors(waited)
    return own * np.stack([np.ones(len(rows)), scales, np.ones(len(rows))], axis=1)


def _is_alone(model: StepModel, rank: RankModel, rows: Rows) -> bool:
    """Whether the traced loop loads itself, one batch in each step, on a core that nobody else wants."""
    alone = not model.loader.is_simulated(model.workers, model.recorded_workers) and model.cores >= 1.0 + model.loader.foreign
    return alone and all(len(rank.batches[row]) == 1 for row in rows)


def _less(time: Time, removed_us: float) -> Time:
    return Time(time.wait_us, max(time.cpu_us - removed_us, 0.0), time.unknown_us)


def _parts_us(model: StepModel, rank: RankModel, rows: Rows, values: Mapping[str, float]) -> Floats:
    """What changes of single parts take off each step of a device job."""
    total = np.zeros(len(rows))
    for knob, part in model.parts.items():
        total = total + values[part_share(knob)] * part.of(part.cpu_us, rank.rank, rows.tolist())
    return total


def _without_parts(model: StepModel, rank: RankModel, row: int, time: Time, values: Mapping[str, float]) -> Time:
    """The step's own work without the share of each part that goes, and with what stays of waiting for a core."""
    for knob, part in model.parts.items():
        share = values[part_share(knob)]
        cpu, blocked, queued = (
            float(part.of(times, rank.rank, [row])[0]) for times in (part.cpu_us, part.blocked_us, part.runqueue_us)
        )
        wait = max(time.wait_us - share * blocked, 0.0)
        rest = share * (blocked + cpu) - (time.wait_us - wait)
        time = Time(wait + (1.0 - share) * queued, max(time.cpu_us - rest, 0.0), time.unknown_us)
    return time


def _repeated(model: StepModel, rank: RankModel, rows: Rows, found: Floats) -> Floats:
    """Steps of a replay that run forward and backward more often, and what happens once per update as often as now."""
    if not model.repeats:
        return found
    once = np.resize(optimizer_us(model, rank)[rows], len(found))
    return once + math.prod(model.repeats.values()) * np.maximum(found - once, 0.0)


def _logging_us(model: StepModel, rank: RankModel) -> float:
    return model.logging_us.get(rank.rank, 0.0)


def replay_problem(model: StepModel) -> Unknown | None:
    """Why the traces of a device job cannot be replayed."""
    for rank in model.measured.ranks:
        if isinstance(rank.program, Unknown):
            return rank.program
    return None


def half_widths(model: StepModel, rows: Sequence[int], after_us: float) -> tuple[float, float]:
    """How far below and above the ends of the model's estimates bring the step: 80 % half-widths of its logarithm.

    The estimates are independent, so their effects add in quadrature, each side apart.
    """
    ends = {
        name: [end for end in (estimate.low, estimate.high) if end != estimate.value]
        for name, estimate in model.estimates.items()
    }
    simulated = iter(simulated_steps_us(model, [(rows, {name: end}) for name, both in ends.items() for end in both]))
    down, up = 0.0, 0.0
    for both in ends.values():
        moved = [math.log(next(simulated) / after_us) for _ in both]
        down, up = math.hypot(down, min([*moved, 0.0])), math.hypot(up, max([*moved, 0.0]))
    return down, up
