"""Waiting for data step by step, and what whoever loads did meanwhile: ran, waited for a core, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.analyses.sampled_time import mean_between
from perfnb.config.mapping import has_knob, value_of
from perfnb.errors import ConfigError
from perfnb.intervals import Floats
from perfnb.run import Machine

STALL_PARTS: Final = ("idle.data", "data.cpu", "data.blocked", "data.wall")
"""Ledger parts in which a step waits for data; time on the run queue is not the loader's."""

LEAST_RUNQUEUE_SHARE: Final = 0.30
"""Share of their time that workers wait for a core, from which on they hold up one another (a prior)."""

_LARGEST_UNKNOWN_SHARE: Final = 0.20  # detectors.md 1.5: what misses in more than a fifth of the rows is not measured
_PARTS: Final = ["cpu_us", "runqueue_us", "blocked_us"]


@dataclass(frozen=True, slots=True, eq=False)
class LoaderStall:
    """Waiting for data and what is known of it.

    Attributes
    ----------
    rows
        One row per (rank, step): stall_us, and of it cpu_us, runqueue_us and blocked_us: while whoever loads ran, waited for a
        core (workers only) or neither; NaN where that is not known. With workers the rest of the stall is what the training
        thread itself takes to receive a batch. Further host_us, of the whole phase on the host.
    workers
        Number of loader workers, None where unknown.
    reason
        Why the parts are not known; empty where they are.
    """

    rows: pd.DataFrame
    workers: int | None
    reason: str


def stall_per_step(ledger: pd.DataFrame) -> pd.DataFrame:
    """Time in which each (rank, step) waits for data: rank, step, stall_us; devices of one rank are averaged.

    Examples
    --------
    >>> ledger = pd.DataFrame(
    ...     {"rank": 0, "step": [1, 1, 2], "device": pd.NA, "part": ["data.cpu", "data.blocked", "forward.cpu"], "time_us": 5.0}
    ... )
    >>> stall_per_step(ledger)["stall_us"].to_list()
    [10.0, 0.0]
    """
    stalled = ledger.assign(stall_us=ledger["time_us"].where(ledger["part"].isin(STALL_PARTS), 0.0))
    per_device = stalled.groupby(["rank", "step", "device"], dropna=False, as_index=False)[["stall_us"]].sum()
    return per_device.groupby(["rank", "step"], as_index=False)[["stall_us"]].mean()


def worker_count(config: Mapping[str, Any], host_samples: pd.DataFrame | None = None) -> int | None:
    """Number of loader workers: as the config says, else as many as were seen; None where neither tells.

    Examples
    --------
    >>> worker_count({"data": {"num_workers": 2}})
    2
    """
    told = knob_or_none(config, "num_workers")
    if type(told) is int and told >= 0:
        return told
    if host_samples is None or host_samples["workers"].isna().all():
        return None
    return int(host_samples["workers"].max())


def knob_or_none(config: Mapping[str, Any], knob: str) -> Any:
    """Value of a knob; None where the config lacks it, or holds it at several places."""
    try:
        return value_of(config, knob) if has_knob(config, knob) else None
    except ConfigError:
        return None


def loader_stall(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    config: Mapping[str, Any],
    host_samples: pd.DataFrame | None,
    phases: pd.DataFrame | None,
) -> LoaderStall:
    """Waiting for data of each used step, split by what whoever loads did.

    Without workers that is the training thread: its own clock tells, on a device job in the proportion of the phase on the
    host. With workers it is they, as sampled some ten times a second: their mean over the time of the step, and over all steps
    where no sample tells of one.

    Parameters
    ----------
    ledger, steps, config, host_samples, phases
        Of the run; the last two are None where it lacks them.
    """
    stall = stall_per_step(ledger)
    host = _host_parts(phases, stall)
    workers = worker_count(config, host_samples)
    if workers is None:
        reason = "whether the loader has workers is not known: pass num_workers in the config"
        return _unknown(stall, host, workers, reason)
    if workers == 0:
        split = _own_parts(stall, host)
        why = "the training thread's CPU time inside the loader was not recorded: record with perfnb.record on Linux"
    elif host_samples is None:
        return _unknown(stall, host, workers, "what the loader's workers did was not recorded: record with perfnb.record")
    else:
        split = _worker_parts(ledger, stall, steps, host_samples)
        why = "no sample tells what the loader's workers did: record for some seconds with perfnb.record on Linux"
    rows = stall.assign(**{name: split[name] for name in _PARTS}, host_us=host["host_us"])
    missing = rows.loc[rows["cpu_us"].isna(), "stall_us"].sum()
    is_known = missing <= _LARGEST_UNKNOWN_SHARE * rows["stall_us"].sum()
    return LoaderStall(rows, workers, "" if is_known and rows["cpu_us"].notna().any() else why)


def usable_cores(machine: Machine, host_samples: pd.DataFrame | None = None) -> float | None:
    """Cores that the job may use: as the machine says, else the smallest limit that was sampled; None where neither tells.

    Examples
    --------
    >>> usable_cores(Machine(cpu_capacity=2))
    2
    """
    if machine.cpu_capacity is not None:
        return machine.cpu_capacity
    limits = pd.Series(dtype=float) if host_samples is None else host_samples["cgroup_cpu_limit"].dropna()
    return float(limits.min()) if len(limits) else None


def held_up_by_one_another(stall: LoaderStall, cores: float | None) -> pd.Series:
    """Time of each row of a stall in which workers, more than there are cores, wait for a core; 0 where that is not the trouble.

    Parameters
    ----------
    stall
        See `loader_stall`.
    cores
        See `usable_cores`.
    """
    rows = stall.rows
    if cores is None or not stall.workers or stall.workers <= cores:
        return pd.Series(0.0, index=rows.index)
    waited = rows[_PARTS].sum(axis=1).groupby(rows["rank"]).transform("sum")
    queued = rows["runqueue_us"].groupby(rows["rank"]).transform("sum")
    return rows["runqueue_us"].where(queued >= LEAST_RUNQUEUE_SHARE * waited, 0.0).fillna(0.0)


def _unknown(stall: pd.DataFrame, host: pd.DataFrame, workers: int | None, reason: str) -> LoaderStall:
    return LoaderStall(stall.assign(**dict.fromkeys(_PARTS, np.nan), host_us=host["host_us"]), workers, reason)


def _host_parts(phases: pd.DataFrame | None, stall: pd.DataFrame) -> pd.DataFrame:
    """Wall, CPU and blocked time of the phase on the host, row by row of `stall`; NaN where not recorded."""
    columns = ["wall_us", "cpu_us", "blocked_us"]
    if phases is None or phases.empty:
        return pd.DataFrame(np.nan, index=stall.index, columns=["host_us", *columns[1:]])
    data = phases.loc[phases["phase"].eq("data"), ["rank", "step", *columns]]
    found = stall[["rank", "step"]].merge(data, how="left", on=["rank", "step"])
    return found.rename(columns={"wall_us": "host_us"}).set_axis(stall.index)[["host_us", *columns[1:]]]


def _own_parts(stall: pd.DataFrame, host: pd.DataFrame) -> dict[str, Floats]:
    """The stall in the proportion of the training thread's own CPU and blocked time."""
    waited = stall["stall_us"].to_numpy()
    cpu, blocked = host["cpu_us"].to_numpy(), host["blocked_us"].to_numpy()
    total = cpu + blocked
    share = np.divide(cpu, total, out=np.full(len(waited), np.nan), where=total > 0)
    share = np.where(waited > 0, share, 0.0)
    return {"cpu_us": waited * share, "runqueue_us": np.zeros(len(waited)), "blocked_us": waited * (1 - share)}


def _worker_parts(ledger: pd.DataFrame, stall: pd.DataFrame, steps: pd.DataFrame, samples: pd.DataFrame) -> dict[str, Floats]:
    """The time that the training thread stands still, in the proportion of what the workers did."""
    shares = _worker_shares(stall, steps, samples)
    receiving = ledger[ledger["part"].eq("data.cpu")].groupby(["rank", "step"])["time_us"].sum()
    own = receiving.reindex(pd.MultiIndex.from_frame(stall[["rank", "step"]]), fill_value=0.0).to_numpy()
    waited = stall["stall_us"].to_numpy() - own
    total = shares.sum(axis=1)
    part = np.divide(shares, total[:, None], out=np.full(shares.shape, np.nan), where=(total > 0)[:, None])
    known = ~np.isnan(part[:, 0])
    if waited[known].sum() > 0:
        part[~known] = (part[known] * waited[known, None]).sum(axis=0) / waited[known].sum()
    return dict(zip(_PARTS, (part * waited[:, None]).T, strict=True))


def _worker_shares(stall: pd.DataFrame, steps: pd.DataFrame, samples: pd.DataFrame) -> Floats:
    """Share of each step in which a worker ran, waited for a core, or neither, the mean over workers; NaN where not sampled."""
    windows = stall[["rank", "step"]].merge(steps[["rank", "step", "start_us", "duration_us"]], how="left", on=["rank", "step"])
    shares = np.full((len(windows), len(_PARTS)), np.nan)
    for rank in windows["rank"].unique():
        own = samples[samples["rank"].eq(rank) & samples["workers"].notna()].sort_values("time_us")
        alive = own["workers"].astype("float64").where(lambda number: number > 0)
        cpu = (own["worker_cpu_cores"] / alive).clip(0.0, 1.0)
        runqueue = own["worker_runqueue_share"].fillna(0.0).clip(0.0, 1.0)
        blocked = own["worker_blocked_share"].fillna(1.0 - cpu - runqueue).clip(0.0, 1.0)
        rows = windows["rank"].eq(rank).to_numpy()
        low = windows.loc[rows, "start_us"].to_numpy()
        high = low + windows.loc[rows, "duration_us"].to_numpy()
        for position, values in enumerate((cpu, runqueue.where(cpu.notna()), blocked.where(cpu.notna()))):
            shares[rows, position] = mean_between(own["time_us"], values, low, high)
    return shares
