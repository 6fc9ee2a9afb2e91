"""Copies and memsets: which way, from what kind of host memory, how many bytes and how fast."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.step_functions import lasting, quantile_over_time, running, thinned
from perfnb.launches import launches
from perfnb.run import Run

COPY_COLUMNS: Final = (
    "rank",
    "device",
    "stream",
    "step",
    "name",
    "direction",
    "host_memory",
    "start_us",
    "duration_us",
    "bytes",
    "bytes_per_s",
)

MEMSET: Final = "memset"
"""Direction of a memset: it copies nothing."""

# Kineto, libkineto/src/cupti_strings.cpp: "Memcpy HtoD (Pageable -> Device)", "Memset (Device)"; roctracer: "CopyHostToDevice".
_DIRECTION: Final = re.compile(r"\b([HDAP]to[HDAP])\b|Copy(Host|Device|Peer)To(Host|Device|Peer)", re.IGNORECASE)
_HOST_MEMORY: Final = re.compile(r"\b(Pageable|Pinned)\b")
_LINE: Final = ["rank", "device", "direction"]
_MICROSECONDS_PER_SECOND: Final = 1e6


def copies(run: Run) -> pd.DataFrame:
    """Every copy and memset on a device, with its direction and the rate that it reached.

    Parameters
    ----------
    run
        A run with device ops.

    Returns
    -------
    pandas.DataFrame
        One row per copy or memset, copies between devices included: rank, device (-1 where not known), stream, step (the host
        step that launched it), name, direction ("HtoD", "DtoH", "DtoD", "PtoP", "HtoH", "memset"; NA where the name does not
        say), host_memory ("pageable" or "pinned"; NA where no host memory takes part or the name does not say), start_us,
        duration_us, bytes and bytes_per_s (bytes over duration; NA without bytes or without a duration).

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text(
    ...     "device_ops",
    ...     '''rank device stream kind name start_us duration_us bytes
    ...                                       0 0 7 copy "Memcpy HtoD (Pageable -> Device)" 0 4 1000''',
    ... )
    >>> copies(Run(device_ops=ops))[["direction", "host_memory", "bytes_per_s"]].to_numpy().tolist()
    [['HtoD', 'pageable', 250000000.0]]
    """
    ops = run.device_ops
    names = ops["name"].astype("category").cat
    texts = [str(name) for name in names.categories]
    directions = pd.Series([_direction(name) for name in texts], dtype="string").array
    memories = pd.Series([_host_memory(name) for name in texts], dtype="string").array
    code = names.codes.to_numpy()
    is_peer = np.array([_direction(name) == "PtoP" for name in texts] + [False])[code]  # code -1: no name
    between_devices = ops["kind"].eq("communication").to_numpy(dtype=bool) & is_peer
    rows = np.flatnonzero(ops["kind"].isin(["copy", "memset"]).to_numpy() | between_devices)
    own = ops.iloc[rows]
    memset = own["kind"].eq("memset").to_numpy(dtype=bool)
    duration_s = own["duration_us"] / _MICROSECONDS_PER_SECOND
    found = pd.DataFrame(
        {
            "rank": own["rank"],
            "device": own["device"].fillna(-1).astype("int64"),
            "stream": own["stream"],
            "step": launches(run)["step"].iloc[rows],
            "name": own["name"],
            "direction": pd.Series(directions.take(code[rows], allow_fill=True), index=own.index).mask(memset, MEMSET),
            "host_memory": pd.Series(memories.take(code[rows], allow_fill=True), index=own.index),
            "start_us": own["start_us"],
            "duration_us": own["duration_us"],
            "bytes": own["bytes"],
            "bytes_per_s": own["bytes"].astype("Float64").astype("float64") / duration_s.where(duration_s > 0),
        }
    )
    return found[list(COPY_COLUMNS)].reset_index(drop=True)


def copy_summary(copied: pd.DataFrame) -> pd.DataFrame:
    """Copies by direction and kind of host memory.

    Parameters
    ----------
    copied
        `copies(run)`, or rows of it.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, direction, host_memory), the longest first: operations, without_bytes (operations whose size
        was not recorded), bytes (of the others), duration_us (sum over all), bytes_per_s (bytes over the duration of the
        operations whose rate is known) and least, median and largest rate of one operation (min_, median_, max_bytes_per_s).
    """
    known = copied["bytes_per_s"].notna()
    grouped = copied.assign(
        without_bytes=copied["bytes"].isna().astype("int64"),
        bytes=copied["bytes"].fillna(0).astype("int64"),
        timed_bytes=copied["bytes"].fillna(0).astype("int64").where(known, 0),
        timed_us=copied["duration_us"].where(known, 0.0),
    ).groupby([*_LINE, "host_memory"], dropna=False, observed=True, sort=False)
    found = grouped.agg(
        operations=("bytes", "size"),
        without_bytes=("without_bytes", "sum"),
        bytes=("bytes", "sum"),
        duration_us=("duration_us", "sum"),
        timed_bytes=("timed_bytes", "sum"),
        timed_us=("timed_us", "sum"),
        min_bytes_per_s=("bytes_per_s", "min"),
        median_bytes_per_s=("bytes_per_s", "median"),
        max_bytes_per_s=("bytes_per_s", "max"),
    ).reset_index()
    timed_s = found["timed_us"].where(found["timed_us"] > 0) / _MICROSECONDS_PER_SECOND
    found.insert(8, "bytes_per_s", found["timed_bytes"] / timed_s)
    found = found.assign(bytes=found["bytes"].astype("Int64").mask(found["without_bytes"] == found["operations"]))
    found = found.drop(columns=["timed_bytes", "timed_us"])
    return found.sort_values(["rank", "device", "duration_us"], ascending=[True, True, False], kind="stable", ignore_index=True)


def copy_bandwidth(copied: pd.DataFrame) -> pd.DataFrame:
    """Rate at which bytes move, over time; operations that run at once add up.

    Parameters
    ----------
    copied
        `copies(run)`, or rows of it.

    Returns
    -------
    pandas.DataFrame
        One row per moment at which a rate changes, by (rank, device, direction) and time: rank, device, direction, time_us,
        operations (running from that moment on) and bytes_per_s (their rates added). Operations whose rate is not known are
        left out: see without_bytes of `copy_summary`.
    """
    frames = []
    for key, own in copied[copied["bytes_per_s"].notna()].groupby(_LINE, dropna=False, observed=True):
        start = own["start_us"].to_numpy()
        moments = np.concatenate([start, start + own["duration_us"].to_numpy()])
        rate, one = own["bytes_per_s"].to_numpy(), np.ones(len(own))
        time, count = running(moments, np.concatenate([one, -one]))
        rates = running(moments, np.concatenate([rate, -rate]))[1]
        rank, device, direction = key
        frames.append(
            pd.DataFrame(
                {
                    "rank": rank,
                    "device": device,
                    "direction": pd.Series([direction] * len(time), dtype="string"),
                    "time_us": time,
                    "operations": count.astype(np.int64),
                    "bytes_per_s": np.where(count > 0, np.maximum(rates, 0.0), 0.0),  # a sum of floats never returns to 0
                }
            )
        )
    if not frames:
        return pd.DataFrame(columns=[*_LINE, "time_us", "operations", "bytes_per_s"])
    return pd.concat(frames, ignore_index=True)


def copy_bandwidth_summary(bandwidth: pd.DataFrame) -> pd.DataFrame:
    """Rates of `copy_bandwidth` while something is copied.

    Parameters
    ----------
    bandwidth
        `copy_bandwidth(copies(run))`.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device, direction): busy_us (time with at least one operation), and mean, median and largest rate
        over that time (mean_, median_, max_bytes_per_s), weighted by time.
    """
    rows = []
    for key, own in bandwidth.groupby(_LINE, dropna=False, observed=True):
        time, rate = own["time_us"].to_numpy(dtype=float), own["bytes_per_s"].to_numpy(dtype=float)
        lasted = np.where(own["operations"] > 0, lasting(time, float(time[-1])), 0.0)
        busy = float(lasted.sum())
        measures = {
            "busy_us": busy,
            "mean_bytes_per_s": float((rate * lasted).sum()) / busy if busy else float("nan"),
            "median_bytes_per_s": quantile_over_time(rate, lasted, 0.5),
            "max_bytes_per_s": float(rate.max()),
        }
        rows.append(dict(zip(_LINE, key, strict=True)) | measures)
    return pd.DataFrame(rows, columns=[*_LINE, "busy_us", "mean_bytes_per_s", "median_bytes_per_s", "max_bytes_per_s"])


def thinned_copy_bandwidth(bandwidth: pd.DataFrame, most_rows: int = 2000) -> pd.DataFrame:
    """Rows of `copy_bandwidth` that draw the same lines, the highest rates among them; at most `most_rows`."""
    return thinned(bandwidth, _LINE, "bytes_per_s", most_rows)


def _direction(name: str) -> str | None:
    found = _DIRECTION.search(name)
    if found is None:
        return None
    if found[1]:
        return found[1][0].upper() + "to" + found[1][-1].upper()
    return f"{found[2][0].upper()}to{found[3][0].upper()}"


def _host_memory(name: str) -> str | None:
    found = _HOST_MEMORY.search(name)
    return found[1].lower() if found else None
