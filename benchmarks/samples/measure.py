"""The truth: un-profiled step times of all variants of a workload, measured in turns within one session."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.samples.host import NoisyHostError, RunQueueClock, stolen_s, wait_until_quiet
from benchmarks.samples.ranks import from_all_ranks, this_rank
from benchmarks.samples.rounds import Repetition, Round, cause_share, joined, spread_share, summarise
from benchmarks.samples.training import prepare, training_steps
from benchmarks.samples.workloads import Workload

TURNS_PER_ROUND = 5  # the shorter a turn, the less a slow drift of the machine falls on one variant alone
DROPPED_STEPS_PER_TURN = 2  # they still find another variant's data in the caches
TURNS_REPEATED_AT_MOST = 60
EXTRA_ROUNDS_AT_MOST = 6


@dataclass(frozen=True, slots=True)
class Limits:
    """How much noise a recording may hold before it is refused.

    Attributes
    ----------
    runqueue_share
        Share of a turn in which the training thread waited for a core, or the hypervisor took one away; times the
        number of ranks.
    spread_share
        Difference between the largest and the smallest share of the cause that a round gives.
    overhead_share
        Difference between profiled and un-profiled mean step, over the latter.
    """

    runqueue_share: float = 0.02
    spread_share: float = 0.03
    overhead_share: float = 0.04


def measure(workload: Workload, repeats: int, steps: int, limits: Limits | None) -> dict[str, Any]:
    """Measured cost of a workload's cause.

    A round gives every variant its steps in 5 short turns, A B C A B C and so on. Turns in which a training thread had
    to wait for a core are run again: that looks at the waiting alone. Where rounds disagree, further ones follow until
    ``repeats`` of them agree; those left out stay in the result, under ``rounds_left_out``.

    Parameters
    ----------
    workload
        What to measure.
    repeats
        Rounds to keep.
    steps
        Steps per variant and round; the first 2 of each turn are dropped.
    limits
        Noise to refuse; None accepts any, for tests.

    Returns
    -------
    dict[str, Any]
        The ``truth`` of provenance.json.

    Raises
    ------
    NoisyHostError
        If turns keep being disturbed, or too few rounds agree.
    """
    turns = _turns(workload, steps, limits)
    next(turns)  # only warms up
    rounds: list[Round] = []
    while len(rounds) < repeats + EXTRA_ROUNDS_AT_MOST:
        rounds.append(joined(list(itertools.islice(turns, TURNS_PER_ROUND))))
        if this_rank() == 0:
            means = {name: round(fmean(repetition.step_us)) for name, repetition in rounds[-1].items()}
            print(f"  round {len(rounds)}: step {means} us, share {cause_share(rounds[-1]):.4f}", flush=True)
        if len(rounds) < repeats:
            continue
        kept = min(itertools.combinations(rounds, repeats), key=spread_share)
        if limits is None or spread_share(kept) <= limits.spread_share:
            left_out = [each for each in rounds if each not in kept]
            shape = {"turns_per_round": TURNS_PER_ROUND, "dropped_steps_per_turn": DROPPED_STEPS_PER_TURN}
            return {**shape, **summarise(workload, kept, left_out)}
    message = f"{workload.name}: shares of the rounds differ by {spread_share(kept):.3f}"
    raise NoisyHostError(message)


def wait_together(workload: Workload) -> None:
    """Return in all ranks once the machine has a free core for each of them."""
    noise: NoisyHostError | None = None
    if this_rank() == 0:
        try:
            wait_until_quiet(workload.before["world_size"])
        except NoisyHostError as error:
            noise = error
    noise = from_all_ranks(noise)[0]
    if noise:
        raise noise


def _turns(workload: Workload, steps: int, limits: Limits | None) -> Iterator[Round]:
    epoch_steps = steps * 100  # never reached: no epoch edge falls among the steps
    running = {name: training_steps(prepare(config, epoch_steps)) for name, config in workload.variants().items()}
    # Where ranks fill every core, each waits 2-3 % for its own exchange threads on an otherwise silent machine.
    allowed_share = limits.runqueue_share * workload.before["world_size"] if limits else float("inf")
    names = list(running)  # rotated: whoever goes first finds a core that has just slept, which costs time
    repeated = 0
    while repeated <= TURNS_REPEATED_AT_MOST:
        if limits:
            wait_together(workload)
        turn = {name: _run_turn(name, running[name], steps // TURNS_PER_ROUND) for name in names}
        names = [*names[1:], names[0]]
        if max(repetition.disturbed_share for repetition in turn.values()) <= allowed_share:
            yield {name: turn[name] for name in running}
        else:
            repeated += 1
    message = f"{workload.name}: {repeated} turns were disturbed by other work"
    raise NoisyHostError(message)


def _run_turn(variant: str, epoch: Iterator[int], steps: int) -> Repetition:
    for _ in range(DROPPED_STEPS_PER_TURN):
        next(epoch)
    clock = RunQueueClock()
    waited_us, stolen = clock.read_us(), stolen_s()
    edges_ns = [time.perf_counter_ns()]
    for _ in range(steps - DROPPED_STEPS_PER_TURN):
        next(epoch)
        edges_ns.append(time.perf_counter_ns())
    waited_us, stolen_us = clock.read_us() - waited_us, (stolen_s() - stolen) * 1e6
    clock.close()
    step_us = [(end - start) / 1e3 for start, end in itertools.pairwise(edges_ns)]
    ranks = from_all_ranks((step_us, waited_us, stolen_us))
    means_us = [fmean(times) for times in zip(*(rank[0] for rank in ranks), strict=True)]
    return Repetition(variant, means_us, max(rank[1] for rank in ranks), max(rank[2] for rank in ranks))
