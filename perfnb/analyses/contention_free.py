"""Contention-free steps: what a step takes of a core and of other waiting, without waiting for a core; and that waiting."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.sampled_steps import rate_in_steps
from perfnb.idle_time import CAUSES

PHASES: Final = ("data", "transfer", "forward", "backward", "communication", "optimizer", "inference", "other", "unsplit")
"""Phases of a step on the host's clock; unsplit is what could not be told apart."""

RUNQUEUE: Final = ".runqueue"
RUNQUEUE_CLAIMS: Final = (*(f"{phase}.runqueue" for phase in PHASES), *(f"idle.{cause}" for cause in CAUSES))
"""Ledger parts that waiting for a core takes: on a CPU job its own, on a device job idle time that nothing else explains."""

OWN_SHARE: Final = 0.8
"""Of the cores the job may use: where its own processes take more, it competes with itself; a prior."""

_IDLE: Final = "idle."
_WALL: Final = ".wall"


def run_queue_time(ledger: pd.DataFrame, phases: pd.DataFrame | None) -> pd.DataFrame:
    r"""Time that the training thread of each step was ready to run and had no core.

    On a device job at most the time that the device idled: what its queued work hides costs nothing.

    Parameters
    ----------
    ledger
        Parts of the used steps.
    phases
        The run's; needed on a device job, whose ledger tells of the device alone.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step) of the ledger: runqueue_us, NaN where it is not known.

    Examples
    --------
    >>> parts = {"part": ["data.cpu", "data.runqueue", "other.runqueue"], "time_us": [5.0, 2.0, 1.0]}
    >>> ledger = pd.DataFrame({"rank": 0, "step": 1, "clock": "host", "device": pd.NA, **parts})
    >>> run_queue_time(ledger, None)["runqueue_us"].to_list()
    [3.0]
    """
    steps = ledger[["rank", "step"]].drop_duplicates(ignore_index=True)
    if ledger["clock"].eq("host").all():
        own = ledger[ledger["part"].str.endswith(RUNQUEUE)]
        return steps.merge(_sums(own, "time_us", "runqueue_us"), how="left", on=["rank", "step"])
    idle = ledger[ledger["part"].str.startswith(_IDLE)]
    idle = idle.groupby(["rank", "step", "device"], dropna=False, as_index=False)[["time_us"]].sum()
    idle = idle.groupby(["rank", "step"], as_index=False)[["time_us"]].mean()
    known = pd.DataFrame(columns=["rank", "step", "runqueue_us"]) if phases is None else _known(phases)
    both = steps.merge(idle, how="left", on=["rank", "step"]).merge(known, how="left", on=["rank", "step"])
    waited = np.minimum(both["runqueue_us"].astype("float64"), both["time_us"].fillna(0.0))
    return both[["rank", "step"]].assign(runqueue_us=waited)


def cores_of_job(steps: pd.DataFrame, host_samples: pd.DataFrame) -> NDArray[np.float64]:
    """Cores that the job's own processes, loader workers among them, used during each step; NaN where no sample tells.

    Parameters
    ----------
    steps
        rank, start_us and duration_us.
    host_samples
        The run's.
    """
    workers: NDArray[np.float64] = np.nan_to_num(rate_in_steps(steps, host_samples, "worker_cpu_cores"))
    return rate_in_steps(steps, host_samples, "own_cpu_cores") + workers


def contention_free(steps: pd.DataFrame, ledger: pd.DataFrame, phases: pd.DataFrame | None) -> pd.DataFrame:
    r"""Used steps with A = cpu + max(0, T - cpu - runqueue): what a step takes when nobody competes for the cores.

    Wall time of a step spreads by half on a busy machine where nothing of the training changed; A is steadier, though not
    immune: neighbours take caches too.

    Parameters
    ----------
    steps, phases
        The run's.
    ledger
        Parts of the used steps.

    Returns
    -------
    pandas.DataFrame
        Rows of `steps` in order of rank and time, with own_us. On a device job without phases that is the whole step; on a
        CPU job without the split of its phases it is NaN.

    Examples
    --------
    >>> steps = pd.DataFrame({"rank": [0], "step": [1], "start_us": [0.0], "duration_us": [8.0]})
    >>> parts = {"part": ["data.cpu", "data.runqueue", "other.runqueue"], "time_us": [5.0, 2.0, 1.0]}
    >>> ledger = pd.DataFrame({"rank": 0, "step": 1, "clock": "host", "device": pd.NA, **parts})
    >>> contention_free(steps, ledger, None)["own_us"].to_list()
    [5.0]
    """
    waited = run_queue_time(ledger, phases)
    used = steps.merge(waited, on=["rank", "step"]).sort_values(["rank", "start_us"], ignore_index=True)
    if ledger["clock"].eq("host").all():
        unsplit = ledger[ledger["part"].str.endswith(_WALL) & ledger["time_us"].gt(0)][["rank", "step"]].drop_duplicates()
        is_unsplit = used.merge(unsplit, how="left", on=["rank", "step"], indicator=True)["_merge"].eq("both")
        own = (used["duration_us"] - used["runqueue_us"]).where(~is_unsplit.to_numpy())
    else:
        own = used["duration_us"] - used["runqueue_us"].fillna(0.0)
    return used.assign(own_us=own.clip(lower=0.0)).drop(columns="runqueue_us")


def _known(phases: pd.DataFrame) -> pd.DataFrame:
    """Run-queue time of the steps of which some phase tells it."""
    return _sums(phases[phases["runqueue_us"].notna()], "runqueue_us", "runqueue_us")


def _sums(rows: pd.DataFrame, column: str, name: str) -> pd.DataFrame:
    return rows.groupby(["rank", "step"], as_index=False)[[column]].sum().rename(columns={column: name})
