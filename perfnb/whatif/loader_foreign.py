"""How many cores others used while a run was recorded, from its samples of the host."""

from __future__ import annotations

from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from perfnb.ledger import steady_steps
from perfnb.prediction import Unknown
from perfnb.record.loader_probe_quiet import LARGEST_FOREIGN_CORES
from perfnb.run import Run

LARGEST_DRIFT_CORES: Final = 0.5
FOREIGN_ERROR: Final = 0.35
"""80 % half-width where foreign load is modelled; whatif contract, section 3."""

_FEWEST_SAMPLES: Final = 4

_found: WeakKeyDictionary[Run, Foreign | None] = WeakKeyDictionary()


class Foreign(NamedTuple):
    """Cores that other processes than the job's used during the steady steps, and by how much that moved.

    Attributes
    ----------
    cores
        The mean.
    drift_cores
        Difference of the means of the first and the second half.
    """

    cores: float
    drift_cores: float


def foreign_load(run: Run) -> Foreign | None:
    """The load by others; None where the run does not tell.

    Busy share of the host times the cores of the job, less what the job's own processes and their workers used, and less niced
    processes, which give way. On a host with more cores than the job may use this is the least that others took of the job's
    own. Jobs over several hosts do not tell; a job that is niced itself is taken for one that is not.
    """
    if run not in _found:
        _found[run] = _load(run)
    return _found[run]


def foreign_threads(run: Run, ranks: int) -> float | Unknown:
    """Threads of others beside each rank, 0 where they do not count; or that they moved too much to be modelled."""
    found = foreign_load(run)
    if found is None or (found.cores <= LARGEST_FOREIGN_CORES and found.drift_cores <= LARGEST_DRIFT_CORES):
        return 0.0
    if found.drift_cores > LARGEST_DRIFT_CORES:
        reason = (
            f"other processes used {found.cores:.1f} cores during the run and that moved by {found.drift_cores:.1f} "
            f"from its first to its second half (at most {LARGEST_DRIFT_CORES:g})"
        )
        return Unknown(reason, "a run on a quieter machine")
    return found.cores / max(ranks, 1)


def _load(run: Run) -> Foreign | None:
    samples, cores = run.host_samples, run.machine.cpu_capacity
    if samples.empty or not cores or samples["host"].nunique() > 1:
        return None
    steps = steady_steps(run)
    low, high = float(steps["start_us"].min()), float((steps["start_us"] + steps["duration_us"]).max())
    inside = samples[samples["time_us"].between(low, high) & samples["cpu_share"].notna() & samples["own_cpu_cores"].notna()]
    if len(inside) < _FEWEST_SAMPLES:
        return None
    middle = (low + high) / 2.0
    halves = []
    for half in (inside[inside["time_us"] < middle], inside[inside["time_us"] >= middle]):
        if half.empty:
            return None
        own = half.assign(worker_cpu_cores=half["worker_cpu_cores"].fillna(0.0)).groupby("rank")
        used = float((own["own_cpu_cores"].mean() + own["worker_cpu_cores"].mean()).sum())
        busy = (half["cpu_share"] - half["low_priority_cpu_share"].fillna(0.0)).mean()
        halves.append(float(busy) * cores - used)
    return Foreign(max(float(np.mean(halves)), 0.0), abs(halves[1] - halves[0]))
