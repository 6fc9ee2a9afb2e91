"""What a run tells about each rank's step: the waits for its batches, its own work, the time it spends with its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import ref

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.intervals import EMPTY, Intervals
from perfnb.ledger import steady_steps, step_ledger
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.known_parts import pauses_us
from perfnb.whatif.loading_operators import LoadingOperators, loading_operators
from perfnb.whatif.logging_spans import logging_spans
from perfnb.whatif.segments import Program, compile_timeline
from perfnb.whatif.timeline import Timeline, build_timeline
from perfnb.whatif.trace_replay import replayed_steps_us
from perfnb.work import rank_work

Floats = NDArray[np.float64]

FEWEST_STEPS: Final = 10  # whatif contract, section 3
FEWEST_TRACED_STEPS: Final = 3
LARGEST_REPLAY_ERROR: Final = 0.005
LARGEST_VARIATION: Final = 0.3
_OUTLIER_FACTOR: Final = 1.5


@dataclass(frozen=True, slots=True)
class Time:
    """An amount of time by what the thread did: waited, computed, or one of the two without telling which."""

    wait_us: float = 0.0
    cpu_us: float = 0.0
    unknown_us: float = 0.0

    @property
    def total_us(self) -> float:
        """All of it."""
        return self.wait_us + self.cpu_us + self.unknown_us


@dataclass(frozen=True, slots=True, eq=False)
class RankModel:
    """One rank over the steady steps; every sequence has one entry per step.

    Attributes
    ----------
    rank
        Its number.
    batches
        Time in the loader, wait by wait.
    own
        Work of the step outside the loader.
    peers_us
        Time of the step with other ranks: waiting for them, exchanging data, or waiting for a core that exchanging takes.
    other_us
        Part of `own` in no named phase: logging, callbacks, plain Python.
    graph, program
        Host and device work of a device job, and its compiled form; or why it cannot be replayed. None for a CPU job.
    pause_us
        Mean time between the end of a step and the start of the next.
    loading
        What the operators inside the loader spans tell; None without a trace.
    logging
        Host time that is taken to be logging, of a device job.
    """

    rank: int
    batches: tuple[tuple[Time, ...], ...]
    own: tuple[Time, ...]
    peers_us: Floats
    other_us: Floats
    graph: Timeline | Unknown | None
    program: Program | Unknown | None
    pause_us: float
    loading: LoadingOperators | None
    logging: Intervals = EMPTY


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A run as the models need it.

    Attributes
    ----------
    ranks
        The ranks that were read.
    step_us
        Duration of each steady step: of its critical rank, or the mean over ranks where none waits.
    numbers
        Their numbers.
    is_traced, is_device_job
        Whether single events were recorded, and device work among them.
    seen_workers
        Whether the trace waits for loader processes; None where it shows no loader.
    missing_ranks
        Ranks of the job that were not read.
    source
        Gives the run for as long as it lives.
    """

    ranks: tuple[RankModel, ...]
    step_us: Floats
    numbers: tuple[int, ...]
    is_traced: bool
    is_device_job: bool
    seen_workers: bool | None
    missing_ranks: tuple[int, ...]
    source: Callable[[], Run | None]

    @property
    def loading_share(self) -> float:
        """Share of the step in the loader, of the rank where it is largest."""
        loading = [sum(each.total_us for step in rank.batches for each in step) for rank in self.ranks]
        return max(loading) / float(self.step_us.sum())


def measured(run: Run, *, is_shadow: bool = False) -> Measured | Unknown:
    """What the models need of a run, or why it holds too little; a shadow is made of any run with phases and three steps."""
    if run.steps.empty:
        reason = run.missing.get("steps", "the run has no step boundaries")
        return Unknown(reason, "a run with steps: call prof.step() once per iteration")
    steps = steady_steps(run)
    common = sorted(set.intersection(*(set(own["step"]) for _, own in steps.groupby("rank"))))
    steps = steps[steps["step"].isin(common)]
    is_traced = run.is_traced
    fewest = FEWEST_TRACED_STEPS if is_traced or is_shadow else FEWEST_STEPS
    if len(common) < fewest:
        reason = f"the run has {len(common)} steady steps, {fewest} are needed"
        return Unknown(reason, f"a run of at least {fewest + 1} steps after warming up")
    if run.uses_device and not run.is_device_job:
        return Unknown(
            "the work of the device was not recorded: time that the host waits may be hidden behind it",
            "a profiler's window: record(trace=5)",
        )
    if run.phases.empty and not run.is_device_job:
        reason = run.missing.get("phases", "no phase of a step was recorded")
        return Unknown(reason, "phases of each step, or a trace")
    work = rank_work(step_ledger(run)).merge(steps[["rank", "step"]], on=["rank", "step"])
    waits = len(run.ranks) > 1 and bool((work["with_peers_us"] > 0).any())
    chosen = work[work["is_critical"]] if waits else work
    ranks = tuple(_rank_model(run, rank, steps[steps["rank"] == rank].sort_values("start_us"), work) for rank in run.ranks)
    missing = tuple(sorted(set(range(run.world_size or 1)) - {each.rank for each in ranks})) if run.world_size else ()
    found = Measured(
        ranks=ranks,
        step_us=chosen.groupby("step")["duration_us"].mean().to_numpy(),
        numbers=tuple(int(step) for step in common),
        is_traced=is_traced,
        is_device_job=run.is_device_job,
        seen_workers=next((rank.loading.in_workers for rank in ranks if rank.loading), None),
        missing_ranks=missing,
        source=ref(run),
    )
    unsteady = None if is_shadow else _unsteady(found, run)
    return found if unsteady is None else unsteady


def _rank_model(run: Run, rank: int, steps: pd.DataFrame, work: pd.DataFrame) -> RankModel:
    own_work = work[work["rank"] == rank].set_index("step").loc[steps["step"]]
    phases = run.phases[run.phases["rank"] == rank]
    phases = phases.assign(phase=phases["phase"].astype(object))
    peers = own_work["with_peers_us"].to_numpy()
    if not run.is_device_job and len(run.ranks) > 1:
        peers = peers + np.where(peers > 0.0, crowded_us(phases, steps["step"]), 0.0)
    wall = phases.pivot_table(index="step", columns="phase", values="wall_us", aggfunc="sum", observed=True)
    wall = wall.reindex(index=steps["step"]).fillna(0.0)
    other = wall["other"].to_numpy() if "other" in wall else np.zeros(len(steps))
    low, high = float(steps["start_us"].iloc[0]), float((steps["start_us"] + steps["duration_us"]).iloc[-1])
    host = run.host_ops[run.host_ops["rank"] == rank]
    loading = loading_operators(host, low, high)
    graph = build_timeline(run, rank, steps) if run.is_device_job else None
    if isinstance(graph, Timeline):
        program = compile_timeline(graph)
        batches = recorded_waits(graph)
        pause = float(np.mean(np.diff(graph.edges_us) - steps["duration_us"].to_numpy()))
        replayed = replayed_steps_us(program, [each.total_us for step in batches for each in step])
        error = sum(replayed) / float(np.diff(graph.edges_us).sum()) - 1.0
        refused = _replay_refusal(error)
        loader = np.array([sum(each.total_us for each in step) for step in batches])
        rest = np.maximum(steps["duration_us"].to_numpy() - loader - peers, 0.0)
        own = tuple(Time(cpu_us=float(time)) for time in rest)
        logging = logging_spans(host, steps)
        return RankModel(
            rank, batches, own, peers, other, graph, program if refused is None else refused, pause, loading, logging
        )
    data, rest = _times(phases, wall, steps, peers)
    return RankModel(rank, tuple((each,) for each in data), rest, peers, other, graph, graph, 0.0, loading)


def crowded_us(phases: pd.DataFrame, steps: pd.Series) -> Floats:
    r"""How long backward waits for a core in each step beyond what forward does: threads that exchange gradients take it.

    Forward, in which nothing is exchanged, shows how long work waits for a core because of others.

    Parameters
    ----------
    phases
        Rows of one rank.
    steps
        Numbers of the steps.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> phases = table_from_text("phases", "rank step phase cpu_us runqueue_us\n0 1 forward 100 10\n0 1 backward 200 50")
    >>> crowded_us(phases, pd.Series([1])).tolist()
    [30.0]
    """
    times = {
        phase: phases[phases["phase"].eq(phase)].groupby("step")[["cpu_us", "runqueue_us"]].sum().reindex(steps).fillna(0.0)
        for phase in ("forward", "backward")
    }
    forward, backward = times["forward"].sum(), times["backward"]
    rate = float(forward["runqueue_us"] / forward["cpu_us"]) if forward["cpu_us"] else 0.0
    beyond: Floats = (backward["runqueue_us"] - rate * backward["cpu_us"]).to_numpy(dtype="float64")
    return np.maximum(beyond, 0.0)


def _times(
    phases: pd.DataFrame, wall: pd.DataFrame, steps: pd.DataFrame, peers: Floats
) -> tuple[tuple[Time, ...], tuple[Time, ...]]:
    """Of each step the time in the loader and the other work, split where the run tells; run-queue time is left out then."""
    split = phases[["cpu_us", "blocked_us"]].notna().all(axis=None) and len(phases)
    if not split:
        loader = wall["data"].to_numpy() if "data" in wall else np.zeros(len(steps))
        rest = np.maximum(steps["duration_us"].to_numpy() - loader - peers, 0.0)
        return tuple(Time(unknown_us=float(time)) for time in loader), tuple(Time(cpu_us=float(time)) for time in rest)
    parts = {
        name: phases[chosen].groupby("step")[["blocked_us", "cpu_us"]].sum().reindex(steps["step"]).fillna(0.0).to_numpy()
        for name, chosen in (
            ("data", phases["phase"].eq("data")),
            ("rest", ~phases["phase"].isin(["data", "communication"])),
        )
    }
    return tuple(tuple(Time(float(wait), float(cpu)) for wait, cpu in parts[name]) for name in ("data", "rest"))  # type: ignore[return-value]


def recorded_waits(graph: Timeline) -> tuple[tuple[Time, ...], ...]:
    """Loader waits of each step; a step without one takes a batch that costs nothing."""
    found: list[list[Time]] = [[] for _ in graph.edges_us[1:]]
    for block in graph.blocks:
        if block.kind == "loader":
            step = int(np.searchsorted(graph.edges_us, block.start_us, side="right")) - 1
            found[step].append(Time(unknown_us=block.end_us - block.start_us))
    return tuple(tuple(waits) or (Time(),) for waits in found)


def _replay_refusal(error: float) -> Unknown | None:
    if abs(error) <= LARGEST_REPLAY_ERROR:
        return None
    reason = f"the replay of the unchanged run is off by {error:+.1%}, more than {LARGEST_REPLAY_ERROR:.1%}"
    return Unknown(reason, "a trace whose host work forms one line: no second thread that launches at the same time")


def _unsteady(found: Measured, run: Run) -> Unknown | None:
    own = np.max([[each.total_us for each in rank.own] for rank in found.ranks], axis=0)
    if _variation(own) <= LARGEST_VARIATION:
        return None
    # pauses of known cause, a save at each 50th step for one, belong to the mean that is predicted
    pauses = {rank.rank: pauses_us(run, rank.rank, found.numbers) for rank in found.ranks}
    own = np.max([[each.total_us for each in rank.own] - pauses[rank.rank] for rank in found.ranks], axis=0)
    variation = _variation(own)
    if variation <= LARGEST_VARIATION:
        return None
    outliers = [number for number, time in zip(found.numbers, own, strict=True) if time > _OUTLIER_FACTOR * np.median(own)]
    named = f": steps {', '.join(map(str, outliers[:5]))} stand out" if outliers else ""
    reason = f"the steps vary by {variation:.0%} for reasons other than loading{named}"
    return Unknown(reason, "a steadier run, or one that holds the cause in each step")


def _variation(times: Floats) -> float:
    return float(times.std() / times.mean()) if times.mean() else 0.0
