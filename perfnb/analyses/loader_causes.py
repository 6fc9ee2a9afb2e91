"""Whether a loader waits for samples or works on them: each step's stall, divided between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.analyses.loader_pauses import outlier_excess, restart_excess
from perfnb.analyses.loader_stall import LoaderStall, held_up_by_one_another, knob_or_none, loader_stall, usable_cores
from perfnb.run import Machine

READ_CPU_US_PER_BYTE: Final = 0.25e-3
"""CPU time of reading a byte from storage, microseconds: .22 to .38 ns at 64 KiB to 4 MiB a read (measured: Linux, 2-core VM)."""

CLEARLY_MORE: Final = 2.0
"""One of the two is clearly the larger from this ratio on; fitted on recorded CPU runs (detectors.md, section 3)."""

SWITCHES_PER_SAMPLE: Final = 0.5
"""Voluntary switches per sample from which on each sample is a wait: 64 of 64 recorded runs with slow reads; controls at most .5
per fetch (detectors.md, section 3)."""

_US_PER_S: Final = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class LoaderCauses:
    """What the loader's time goes into.

    Attributes
    ----------
    rows
        One row per (rank, step), without long pauses (`perfnb.analyses.loader_pauses`) and
        without what too many workers wait for one another: stall_us, reading_us (waiting for
        storage, network, sleep, and the CPU time that reads from storage take), making_us (the rest of the CPU time, and of
        workers their waiting for a core), is_reading, is_making (whether that is the rank's trouble), read_bytes_per_s,
        switches_per_fetch.
    reason
        Why it is not known; empty where it is.
    """

    rows: pd.DataFrame
    reason: str


def loader_causes(
    ledger: pd.DataFrame,
    steps: pd.DataFrame,
    config: Mapping[str, Any],
    host_samples: pd.DataFrame | None,
    phases: pd.DataFrame | None,
    machine: Machine,
) -> LoaderCauses:
    """Divide each step's stall between waiting for samples and working on them.

    Without workers reading is the trouble where it takes more than computing, making where computing takes clearly more than
    reading. Workers are also blocked where they have nothing to do: there computing that takes more than that is enough, and
    reading is the trouble only where they are blocked for longer than they can have been idle, or about once per sample. That
    they wait for a core decides nothing, since others may take it, but counts with the making.

    Parameters
    ----------
    ledger, steps, config, host_samples, phases
        See `perfnb.analyses.loader_stall.loader_stall`.
    machine
        What the run ran on.
    """
    stall = loader_stall(ledger, steps, config, host_samples, phases)
    if stall.reason:
        return LoaderCauses(stall.rows.iloc[:0], stall.reason)
    rates = sample_means(host_samples)
    queued = held_up_by_one_another(stall, usable_cores(machine, host_samples))
    rows = stall.rows.assign(**{name: stall.rows[name] - queued for name in ("stall_us", "runqueue_us")})
    rows = _without_pauses(rows, steps, rates["read_bytes_per_s"])
    rows = rows.merge(rates, how="left", left_on="rank", right_index=True)
    lasting_us = steps.merge(rows[["rank", "step"]], on=["rank", "step"]).groupby("rank")["duration_us"]
    of_cpu = _reading_share(rows, lasting_us.sum(), stall)
    reading = rows["blocked_us"] + rows["cpu_us"] * of_cpu
    rows = rows.assign(reading_us=reading, making_us=rows["cpu_us"] * (1 - of_cpu) + rows["runqueue_us"])
    switches = rows["worker_switches_per_s" if stall.workers else "voluntary_switches_per_s"]
    rows = rows.assign(switches_per_fetch=switches * rows["rank"].map(lasting_us.mean()) / _US_PER_S)
    on_cpu = rows["cpu_us"] * (1 - of_cpu)
    sums = rows.assign(on_cpu_us=on_cpu).groupby("rank")[["reading_us", "on_cpu_us"]].transform("sum")
    is_more = sums["reading_us"] > sums["on_cpu_us"]
    if not stall.workers:
        is_less = sums["on_cpu_us"] > CLEARLY_MORE * sums["reading_us"]
        return LoaderCauses(rows.assign(is_reading=is_more, is_making=is_less), "")
    is_waiting = _cannot_be_idle(rows, lasting_us.sum(), sums["on_cpu_us"]) | _waits_per_sample(rows, config)
    is_making = sums["on_cpu_us"] > sums["reading_us"]
    is_theirs = _is_mostly_theirs(rows)
    return LoaderCauses(rows.assign(is_reading=is_more & is_waiting & is_theirs, is_making=is_making & is_theirs), "")


def _is_mostly_theirs(rows: pd.DataFrame) -> pd.Series:
    """Whether training stands still for workers for longer than it takes itself to receive their batches."""
    still = rows[["cpu_us", "runqueue_us", "blocked_us"]].sum(axis=1)
    return still.groupby(rows["rank"]).transform("sum") > (rows["stall_us"] - still).groupby(rows["rank"]).transform("sum")


def _cannot_be_idle(rows: pd.DataFrame, lasting_us: pd.Series, on_cpu_us: pd.Series) -> pd.Series:
    """Whether workers are blocked for longer than they compute even if they were idle whenever training did not wait for them."""
    waited = rows["stall_us"].groupby(rows["rank"]).transform("sum")
    parts = rows[["cpu_us", "runqueue_us", "blocked_us"]].groupby(rows["rank"]).transform("sum")
    blocked, on_cpu = parts["blocked_us"] / parts.sum(axis=1), on_cpu_us / parts.sum(axis=1)
    return blocked - (1.0 - waited / rows["rank"].map(lasting_us)) > on_cpu


def _waits_per_sample(rows: pd.DataFrame, config: Mapping[str, Any]) -> pd.Series:
    """Whether the loader gives up its core about once per sample: a wait at each. Idle workers do so some times per batch."""
    samples = knob_or_none(config, "batch_size")
    return rows["switches_per_fetch"] >= (samples if type(samples) is int else np.inf) * SWITCHES_PER_SAMPLE


def sample_means(host_samples: pd.DataFrame | None) -> pd.DataFrame:
    """Means over all samples of each rank, by rank: what it reads, how often it gives up its core, what its workers use.

    A value that the host never told is NaN.
    """
    columns = ["read_bytes_per_s", "voluntary_switches_per_s", "worker_switches_per_s", "worker_cpu_cores"]
    if host_samples is None:
        return pd.DataFrame(columns=columns, dtype="float64", index=pd.Index([], dtype="int64"))
    return host_samples.groupby("rank")[columns].mean()


def _without_pauses(rows: pd.DataFrame, steps: pd.DataFrame, read_bytes_per_s: pd.Series) -> pd.DataFrame:
    """Rows with what restarts of workers and outliers wait taken off: these are troubles of their own."""
    restart = restart_excess(rows, steps)
    rest = 1.0 - np.divide(restart, rows["stall_us"], out=np.zeros(len(rows)), where=rows["stall_us"] > 0)
    rows = rows.assign(**{name: rows[name] * rest for name in ("stall_us", "cpu_us", "runqueue_us", "blocked_us")})
    outlier = outlier_excess(rows, steps, read_bytes_per_s)
    return rows.assign(stall_us=rows["stall_us"] - outlier, blocked_us=rows["blocked_us"] - outlier)


def _reading_share(rows: pd.DataFrame, lasting_us: pd.Series, stall: LoaderStall) -> pd.Series:
    """Share of the loader's CPU time that its reads from storage take; 0 where they are not known."""
    if stall.workers:
        cores = rows["worker_cpu_cores"]
    else:
        cores = rows["rank"].map(rows["cpu_us"].groupby(rows["rank"]).sum() / lasting_us)
    reading = rows["read_bytes_per_s"] * READ_CPU_US_PER_BYTE / _US_PER_S
    share = np.divide(reading, cores, out=np.zeros(len(rows)), where=(cores > 0).to_numpy())
    return pd.Series(share, index=rows.index).clip(0.0, 1.0).fillna(0.0)
