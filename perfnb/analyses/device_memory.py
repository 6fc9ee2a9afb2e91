"""What each device's memory holds against what it can hold: usable and reserved bytes, holes at one instant, retries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.config.mapping import has_knob, value_of
from perfnb.run import Machine
from perfnb.tables import conform, empty

WARM_UP_STEPS: Final = 10
"""Steps after which the allocator's counters should stand still: kernels are chosen and optimizer state is made before."""

NO_CAPACITY: Final = (
    "the size of the device's memory is not known: record it with perfnb.record on the machine that trains, with nvidia-ml-py "
    "installed"
)
"""Why nothing can be said of pressure."""

NOT_RECORDED: Final = (
    "what torch's allocator reserves was not recorded: perfnb.record of a training on a GPU, or a trace with profile_memory=True"
)
"""Why nothing can be said of a device's memory."""

_MEMORY: Final = ["rank", "device"]
_SIZES: Final = ("allocated_bytes", "reserved_bytes", "peak_allocated_bytes", "peak_reserved_bytes")
_COUNTERS: Final = ("retries", "ooms", "device_allocs", "device_frees")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def device_memory(
    allocator: pd.DataFrame, machine: Machine, config: Mapping[str, Any], gpu_samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    r"""Peaks, capacity and pressure of each device that torch's caching allocator served.

    Without a replay of the allocations what the job requires is not known, but bounded: it is at least the allocated peak and
    at most the reserved peak; an out-of-memory says that all that was usable was asked for. Pressure is that upper bound over
    usable memory.

    Parameters
    ----------
    allocator
        Table allocator.
    machine
        The machine; devices of one size, since the driver's numbers are not torch's.
    config
        The training's config; `memory_fraction` is read where it is there.
    gpu_samples
        Samples of the driver, for what others hold of a device. Used for ranks that sampled one GPU and used one device.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device): capacity_bytes, outside_bytes (driver and other processes; NaN where not known),
        usable_bytes, allocated_peak_bytes, reserved_peak_bytes, required_bytes (upper bound), pressure, retries (after
        warm-up) and ooms. Sizes are floats, NaN where not known.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> rows = table_from_text("allocator", "rank step device reserved_bytes peak_reserved_bytes\n0 1 0 60 80")
    >>> device_memory(rows, Machine(device_memory_bytes=(100,)), {})[["required_bytes", "pressure"]].to_numpy().tolist()
    [[80.0, 0.8]]
    """
    keys, place = _memories(allocator)
    ends = {name: _largest(allocator[name], place, len(keys)) for name in _SIZES}
    found = pd.DataFrame(
        {
            "rank": keys[:, 0],
            "device": keys[:, 1],
            "allocated_peak_bytes": np.fmax(ends["peak_allocated_bytes"], ends["allocated_bytes"]),
            "reserved_peak_bytes": np.fmax(ends["peak_reserved_bytes"], ends["reserved_bytes"]),
            "ooms": np.nan_to_num(_largest(allocator["ooms"], place, len(keys))),
            "retries": _retries(allocator, place, len(keys)),
            "capacity_bytes": _one_size(machine),
            "outside_bytes": np.nan,
        }
    )
    if gpu_samples is not None and not gpu_samples.empty:
        seen = _seen_by_driver(allocator, gpu_samples).reindex(keys[:, 0])
        known = seen["capacity_bytes"].to_numpy()
        found["capacity_bytes"] = np.where(np.isnan(known), found["capacity_bytes"], known)
        found["outside_bytes"] = seen["outside_bytes"].to_numpy()
    capacity = found["capacity_bytes"].to_numpy()
    usable = np.minimum(capacity - np.nan_to_num(found["outside_bytes"].to_numpy()), fraction_of(config) * capacity)
    reserved = found["reserved_peak_bytes"].to_numpy()
    required = np.where(found["ooms"] > 0, np.fmax(reserved, usable), reserved)
    return found.assign(usable_bytes=usable, required_bytes=required, pressure=required / usable)


def peaks_of(allocator: pd.DataFrame | None, allocations: pd.DataFrame | None) -> pd.DataFrame:
    r"""The table allocator, or what single allocations of a trace tell of it: the peaks of each device.

    Returns
    -------
    pandas.DataFrame
        The table allocator as given; else one row per (rank, device) with step 0; empty where neither tells of a device.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> rows = "rank device time_us bytes allocated_bytes reserved_bytes\n0 0 0 10 60 90\n0 0 1 -10 50 90"
    >>> peaks_of(None, table_from_text("allocations", rows))[["peak_allocated_bytes", "peak_reserved_bytes"]].to_numpy().tolist()
    [[60, 90]]
    """
    if allocator is not None:
        return allocator
    if allocations is None:
        return empty("allocator")
    rows = allocations[allocations["device"].notna()].groupby(_MEMORY, as_index=False)
    peaks = rows.agg(peak_allocated_bytes=("allocated_bytes", "max"), peak_reserved_bytes=("reserved_bytes", "max"))
    return conform("allocator", peaks.assign(step=0))


def counter_growth(allocator: pd.DataFrame) -> pd.DataFrame:
    r"""What the allocator's counters grew by between one look at it and the next, from the 10th step on.

    Returns
    -------
    pandas.DataFrame
        One row per look but the first of each device: rank, device, step, steps (since the look before), retries, ooms,
        device_allocs, device_frees; NaN where a counter was not recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> rows = table_from_text("allocator", "rank step device retries\n0 0 0 3\n0 10 0 5\n0 12 0 6")
    >>> counter_growth(rows)[["step", "steps", "retries"]].to_numpy().tolist()
    [[12.0, 2.0, 1.0]]
    """
    rows = allocator.assign(device=allocator["device"].fillna(0).astype("int64")).sort_values([*_MEMORY, "step"], kind="stable")
    after = rows["step"] >= rows.groupby(_MEMORY)["step"].transform("min") + WARM_UP_STEPS
    rows = rows.loc[after, [*_MEMORY, "step", *_COUNTERS]].astype(dict.fromkeys(_COUNTERS, "Float64"))
    rows = rows.astype(dict.fromkeys(_COUNTERS, "float64"))
    grown = rows.groupby(_MEMORY)[["step", *_COUNTERS]].diff()
    rows = rows.assign(steps=grown["step"], **{name: grown[name] for name in _COUNTERS})
    return rows[rows["steps"] > 0].reset_index(drop=True)


def fullest_moments(allocator: pd.DataFrame) -> pd.DataFrame:
    r"""The look at each device's allocator with the most allocated: where its reserved memory went at that one instant.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, device): step, reserved_bytes, holes_bytes (inside segments in use: not returnable), and shares of
        reserved that sum to 1: requested_share (the memory efficiency), rounding_share, holes_share, cache_share (whole free
        segments, which `empty_cache` returns). NaN where not recorded.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> columns = "rank step device requested_bytes allocated_bytes active_bytes inactive_split_bytes reserved_bytes"
    >>> rows = table_from_text("allocator", columns + "\n0 1 0 50 60 60 20 100")
    >>> fullest_moments(rows)[["requested_share", "rounding_share", "holes_share", "cache_share"]].to_numpy().round(3).tolist()
    [[0.5, 0.1, 0.2, 0.2]]
    """
    sizes = ["requested_bytes", "allocated_bytes", "active_bytes", "inactive_split_bytes", "reserved_bytes"]
    rows = allocator.assign(device=allocator["device"].fillna(0).astype("int64"))
    rows = rows.loc[rows["reserved_bytes"].gt(0).fillna(value=False), [*_MEMORY, "step", *sizes]]
    rows = rows.astype(dict.fromkeys(sizes, "Float64")).astype(dict.fromkeys(sizes, "float64"))
    rows = rows.loc[rows.fillna({"allocated_bytes": -1.0}).groupby(_MEMORY)["allocated_bytes"].idxmax()].reset_index(drop=True)
    reserved = rows["reserved_bytes"]
    rows = rows.assign(
        holes_bytes=rows["inactive_split_bytes"],
        requested_share=rows["requested_bytes"] / reserved,
        rounding_share=(rows["active_bytes"] - rows["requested_bytes"]) / reserved,
        holes_share=rows["inactive_split_bytes"] / reserved,
        cache_share=1.0 - (rows["active_bytes"] + rows["inactive_split_bytes"]) / reserved,
    )
    shares = ["requested_share", "rounding_share", "holes_share", "cache_share"]
    return rows[[*_MEMORY, "step", "reserved_bytes", "holes_bytes", *shares]]


def fraction_of(config: Mapping[str, Any]) -> float:
    """Share of each device that torch may use, as the config says; 1 where it says nothing."""
    fraction = value_of(config, "memory_fraction") if has_knob(config, "memory_fraction") else None
    return float(fraction) if isinstance(fraction, (int, float)) and 0 < fraction <= 1 else 1.0


def _memories(allocator: pd.DataFrame) -> tuple[Integers, Integers]:
    """Rank and device of each memory, in order, and the place of each row among them."""
    device = allocator["device"].fillna(0).to_numpy(dtype=np.int64)
    keys, place = np.unique(np.column_stack([allocator["rank"].to_numpy(dtype=np.int64), device]), axis=0, return_inverse=True)
    return keys, place.reshape(-1)


def _largest(values: pd.Series, place: Integers, count: int) -> Floats:
    largest = np.full(count, np.nan)
    np.fmax.at(largest, place, values.to_numpy(dtype=np.float64, na_value=np.nan))
    return largest


def _retries(allocator: pd.DataFrame, place: Integers, count: int) -> Floats:
    """What the counter of retries grew by after warm-up; 0 where it was not recorded."""
    step = allocator["step"].to_numpy(dtype=np.int64)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, place, step)
    values = allocator["retries"].to_numpy(dtype=np.float64, na_value=np.nan)
    values = np.where(step >= first[place] + WARM_UP_STEPS, values, np.nan)
    least = np.full(count, np.nan)
    np.fmin.at(least, place, values)
    most = np.full(count, np.nan)
    np.fmax.at(most, place, values)
    grown: Floats = np.nan_to_num(most - least)
    return grown


def _one_size(machine: Machine) -> float:
    sizes = {size for size in machine.device_memory_bytes if size > 0}
    return float(sizes.pop()) if len(sizes) == 1 else float("nan")


def _seen_by_driver(allocator: pd.DataFrame, gpu_samples: pd.DataFrame) -> pd.DataFrame:
    """capacity_bytes and outside_bytes by rank, of ranks whose one device is the one GPU that they sampled."""
    alone = gpu_samples.groupby("rank")["gpu"].nunique(dropna=False).eq(1) & allocator.groupby("rank")["device"].nunique().eq(1)
    own = gpu_samples[gpu_samples["rank"].isin(alone.index[alone])]
    sizes = ["memory_used_bytes", "memory_total_bytes", "memory_reserved_bytes"]
    own = own[["rank", "time_us", *sizes]].astype(dict.fromkeys(sizes, "Float64")).astype(dict.fromkeys(sizes, "float64"))
    held = allocator[["rank", "time_us", "reserved_bytes"]].astype({"reserved_bytes": "Float64"})
    held = held.astype({"reserved_bytes": "float64"}).dropna().sort_values("time_us")
    near = pd.merge_asof(own.dropna(subset="time_us").sort_values("time_us"), held, on="time_us", by="rank")
    near = near.assign(
        capacity_bytes=near["memory_total_bytes"] - near["memory_reserved_bytes"].fillna(0.0),
        outside_bytes=(near["memory_used_bytes"] - near["reserved_bytes"]).clip(lower=0.0),
    )
    return near.groupby("rank")[["capacity_bytes", "outside_bytes"]].median()
