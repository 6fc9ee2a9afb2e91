"""Detector of operators that split their work over more threads than there are cores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from perfnb.analyses.contention_free import contention_free
from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import DetectorExample, Unmeasured, detector, example
from perfnb.run import Machine

_PHASES: Final = ("forward", "backward", "optimizer")
_KINDS: Final = ("runqueue", "blocked")
_PARTS: Final = tuple(f"{phase}.{kind}" for phase in _PHASES for kind in _KINDS)
_LEAST_WAITING: Final = 0.2  # of the contention-free step; recorded: .74 with 32 threads on 2 cores

_STEPS: Final = """rank step start_us duration_us
                   0    7    0        100
                   0    8    100      100
                   1    7    0        100
                   1    8    100      100"""


def _phases(cpu: int, runqueue: int, blocked: int) -> str:
    """The same step four times: of 100 us, so many in forward, the rest on a core in other."""
    rest = 100 - cpu - runqueue - blocked
    rows = [
        f"{rank} {step} forward {100 - rest} {cpu} {runqueue} {blocked}\n{rank} {step} other {rest} {rest} 0 0"
        for rank in (0, 1)
        for step in (7, 8)
    ]
    return "rank step phase wall_us cpu_us runqueue_us blocked_us\n" + "\n".join(rows)


def _samples(threads: int) -> str:
    return f"rank host time_us own_threads\n0 a 0 {threads}\n0 a 100 {threads}\n1 b 0 {threads}\n1 b 100 {threads}"


def _example(title: str, lost_share: float, phases: str, threads: int, samples: str, cores: float = 2) -> DetectorExample:
    return example(
        title,
        lost_share=lost_share,
        signals=("schedstat",),
        config={"torch_num_threads": threads},
        machine=Machine(cpu_capacity=cores),
        steps=_STEPS,
        phases=phases,
        host_samples=samples,
    )


@detector(
    family="host",
    title="Operators with more threads than cores",
    claims=_PARTS,
    needs=("schedstat",),
    tier=2,
    after=("cpu_quota_throttling",),
    injected_by="thread_flood",
    source="recorded: 32 threads on 2 cores wait .74 of the contention-free step in compute phases, as many as cores hardly",
    not_to_confuse_with=("cpu_contention", "cpu_quota_throttling", "python_overhead", "data_stall"),
    recorded_only_when="the detection benchmark trains with sixteen threads per core",
    examples=(
        _example(
            "32 threads on 2 cores: of 100 us, 30 without a core and 20 waiting", 0.50, _phases(40, 30, 20), 32, _samples(34)
        ),
        _example("as many threads as cores: others' load", 0.0, _phases(40, 30, 20), 2, _samples(34)),
        _example("one thread on a quota of half a core", 0.0, _phases(40, 30, 20), 1, _samples(3), cores=0.5),
        _example("32 threads of which none was ever started", 0.0, _phases(40, 30, 20), 32, _samples(3)),
        _example(
            "two ranks of 2 threads on one host with 2 cores",
            0.50,
            _phases(40, 30, 20),
            2,
            "rank host time_us own_threads\n0 a 0 4\n1 a 0 4",
        ),
        _example("waiting of 16 us, under a fifth of the contention-free 92", 0.0, _phases(74, 8, 8), 32, _samples(34)),
        _example("waiting of 22 us, over a fifth of the contention-free 89", 0.22, _phases(70, 11, 11), 32, _samples(34)),
    ),
)
def thread_oversubscription(
    steps: pd.DataFrame,
    ledger: pd.DataFrame,
    config: Mapping[str, Any],
    machine: Machine,
    host_samples: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Time that forward, backward and optimizer of a CPU job wait because their own threads compete for too few cores.

    Each operator ends with its slowest thread, and a thread without a core is the slowest. Counted where torch's threads, at
    least two, times the ranks on the host, are more than the cores the job may use, and waiting in those phases is at least a
    fifth of the contention-free step. It matters because one thread per core does the same work without that waiting. It cannot
    tell this waiting from that for other programs' load at the same time, nor see threads of libraries that are not torch's.
    """
    if not ledger["clock"].eq("host").all():
        message = "on a device job, waiting inside forward and backward is for the device"
        raise Unmeasured(message)
    threads, capacity = (
        value_of(config, "torch_num_threads") if has_knob(config, "torch_num_threads") else None,
        machine.cpu_capacity,
    )
    if not isinstance(threads, int) or capacity is None:
        message = "torch_num_threads or the number of cores is not known: record with perfnb.record, or give it in the config"
        raise Unmeasured(message)
    waiting = ledger[ledger["part"].isin(_PARTS)]
    lost = waiting.groupby("rank")["time_us"].sum() / contention_free(steps, ledger, None).groupby("rank")["own_us"].sum()
    started, together = _own_threads(host_samples), _ranks_on_host(host_samples)
    crowded = [
        rank
        for rank in waiting["rank"].unique()
        if threads > 1
        and threads * together.get(rank, 1) > capacity
        and started.get(rank, threads) >= threads
        and lost.get(rank, 0.0) >= _LEAST_WAITING
    ]
    found = waiting[waiting["rank"].isin(crowded)]
    return found.rename(columns={"time_us": "lost_us"}).assign(threads=threads, cores=capacity)


def _own_threads(samples: pd.DataFrame | None) -> dict[int, float]:
    """Most threads that each rank's process had: a pool is started by the first operator that is large enough."""
    if samples is None:
        return {}
    most = samples.groupby("rank")["own_threads"].max().dropna()
    return {int(rank): float(count) for rank, count in zip(most.index, most, strict=True)}


def _ranks_on_host(samples: pd.DataFrame | None) -> dict[int, int]:
    """Recorded ranks of the job on the host of each rank."""
    if samples is None:
        return {}
    hosts = samples[samples["host"].notna()].drop_duplicates("rank")[["rank", "host"]]
    counts = hosts["host"].astype(str).map(hosts["host"].astype(str).value_counts())
    return {int(rank): int(count) for rank, count in zip(hosts["rank"], counts, strict=True)}
