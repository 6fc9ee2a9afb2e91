"""Samples of GPUs, allocators and hosts in a log: values per GPU and moment, rates out of counters, sizes that must agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from perfnb.errors import LogFormatError
from perfnb.read.metric_column import Column, Floats
from perfnb.read.metric_parts import Part
from perfnb.text import byte_size, clean, count

_ROUNDING: Final = 1.001  # sizes written with four digits


@dataclass(slots=True, eq=False)
class Samples:
    """Rows of the tables of samples from one input; `shares` are values that no table has a column for, by name."""

    gpu: pd.DataFrame
    host: pd.DataFrame
    allocator: pd.DataFrame
    shares: list[tuple[str, Floats]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def samples_of(part: Part, row_us: Floats) -> Samples:
    """Samples of one input.

    Parameters
    ----------
    part
        The input; its ranks are set.
    row_us
        Moment of each row in us since the run's origin, NaN where unknown.

    Raises
    ------
    LogFormatError
        If more memory is used than there is, or allocated than reserved, as sizes in different units are.
    """
    made = Samples(pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    rank = part.rank if part.rank is not None else np.zeros(part.size)
    base: dict[str, Any] = {"rank": rank, "time_us": row_us, "row": np.arange(part.size)}
    per_gpu = _per_gpu(part)
    gpus: list[pd.DataFrame] = []
    allocators: list[pd.DataFrame] = []
    for number, columns in per_gpu.items():
        device = part.gpu if number is None and part.gpu is not None else np.full(part.size, np.nan if number is None else number)
        _check_sizes(columns, number)
        _complete_sizes(columns, made, number)
        for table, found in (("gpu_samples", gpus), ("allocator", allocators)):
            own = {name: values for (place, name), values in columns.items() if place == table}
            if own:
                key = "gpu" if table == "gpu_samples" else "device"
                step = {} if part.step is None or table == "gpu_samples" else {"step": part.step}
                frame = pd.DataFrame({**base, **step, key: device, **own})
                found.append(frame[frame[list(own)].notna().any(axis=1)])
    made.gpu = pd.concat(gpus, ignore_index=True) if gpus else made.gpu
    made.allocator = pd.concat(allocators, ignore_index=True) if allocators else made.allocator
    made.host = _host(part, base, made)
    return made


def _per_gpu(part: Part) -> dict[int | None, dict[tuple[str, str], Floats]]:
    """Columns of each GPU by (table, column); None stands for columns that name none."""
    found: dict[int | None, dict[tuple[str, str], Floats]] = {}
    for column, values in part.found:
        quantity = column.meaning.quantity
        if quantity.table in ("gpu_samples", "allocator"):
            found.setdefault(column.meaning.gpu, {})[quantity.table, quantity.column] = values
    shared = found.get(None, {})
    for number in [number for number in found if number is not None]:
        # one total for all GPUs, as some tools write it
        total = shared.get(("gpu_samples", "memory_total_bytes"))
        if total is not None:
            found[number].setdefault(("gpu_samples", "memory_total_bytes"), total)
    if len(found) > 1 and set(shared) == {("gpu_samples", "memory_total_bytes")}:
        del found[None]
    return found


def _check_sizes(columns: dict[tuple[str, str], Floats], number: int | None) -> None:
    pairs = (
        (("gpu_samples", "memory_used_bytes"), ("gpu_samples", "memory_total_bytes")),
        (("allocator", "reserved_bytes"), ("gpu_samples", "memory_total_bytes")),
        (("allocator", "allocated_bytes"), ("allocator", "reserved_bytes")),
        (("allocator", "peak_allocated_bytes"), ("gpu_samples", "memory_total_bytes")),
    )
    for smaller, larger in pairs:
        if smaller not in columns or larger not in columns:
            continue
        _check_order(columns[smaller], columns[larger], smaller[1], larger[1], "" if number is None else f" of GPU {number}")


def _check_order(small: Floats, large: Floats, small_name: str, large_name: str, where: str) -> None:
    over = np.flatnonzero(small > large * _ROUNDING)
    if over.size:
        row = over[0]
        message = (
            f"{small_name}{where} is {byte_size(small[row])} where {large_name} is {byte_size(large[row])}, "
            f"in {count(over.size, 'row')}: "
            'one of the units is wrong, pass the true ones, as units={"gpu_memory_used": "MiB", "gpu_memory_total": "GiB"}'
        )
        raise LogFormatError(message)


def _complete_sizes(columns: dict[tuple[str, str], Floats], made: Samples, number: int | None) -> None:
    """Work used memory out of its share or what is free, where the total is known; a share alone is a metric."""
    total = columns.get(("gpu_samples", "memory_total_bytes"))
    free, used_share = columns.pop(("gpu_samples", "free"), None), columns.pop(("gpu_samples", "used_share"), None)
    used_key = ("gpu_samples", "memory_used_bytes")
    if free is not None:
        if used_key in columns and total is None:
            columns["gpu_samples", "memory_total_bytes"] = columns[used_key] + free
        elif total is not None and used_key not in columns:
            columns[used_key] = total - free
    if used_share is not None:
        if total is not None and used_key not in columns:
            columns[used_key] = np.round(total * used_share)
        elif used_key not in columns or total is None:
            made.shares.append(("gpu_memory_used_share" if number is None else f"gpu_{number}_memory_used_share", used_share))


def _host(part: Part, base: dict[str, Any], made: Samples) -> pd.DataFrame:
    columns: dict[str, Floats] = {}
    for column, values in part.found:
        quantity = column.meaning.quantity
        if quantity.table != "host_samples":
            continue
        columns[quantity.column] = _rate(part, column, values, base, made) if quantity.kind == "flow" else values
    used, limit = columns.get("memory_bytes"), columns.get("memory_limit_bytes")
    available, used_share = columns.pop("available", None), columns.pop("used_share", None)
    if used is not None and limit is not None:
        _check_order(used, limit, "memory_used", "memory_total", " of the host")
    if available is not None and limit is not None and used is None:
        columns["memory_bytes"] = limit - available
    elif available is not None and limit is None and used is not None:
        columns["memory_limit_bytes"] = used + available
    if used_share is not None:
        made.shares.append(("host_memory_used_share", used_share))
    if not columns:
        return pd.DataFrame()
    frame = pd.DataFrame({**base, "host": part.host if part.host is not None else None, **columns})
    return frame[frame[list(columns)].notna().any(axis=1)]


def _rate(part: Part, column: Column, values: Floats, base: dict[str, Floats], made: Samples) -> Floats:
    """Bytes per second of a column of bytes: as it is, or from a counter's or amount's change over time."""
    known, shown = values[np.isfinite(values)], clean(column.name, 80)
    if column.is_rate or not known.any():
        return values
    if np.isnan(base["time_us"]).all():
        made.notes.append(f"{shown} holds bytes without moments, so no rate can be told: it is not in the table of host samples")
        return np.full(part.size, np.nan)
    order = np.lexsort([base["time_us"], base["rank"]])
    usable = np.isfinite(values) & np.isfinite(base["time_us"])
    ranks = [order[(base["rank"][order] == one) & usable[order]] for one in np.unique(base["rank"])]
    grows = all(bool((np.diff(values[rows]) >= 0.0).all()) for rows in ranks)
    if not column.is_given and not grows:
        message = (
            f"{shown!r} ({part.origin}) rises and falls, so it is no counter: say in units= whether it is a rate or an amount "
            f'per row, for example units={{"{shown}": "{column.unit}/s"}}, or "{column.unit}"'
        )
        raise LogFormatError(message)
    rate = np.full(part.size, np.nan)
    for rows in ranks:
        seconds = np.diff(base["time_us"][rows]) / 1e6
        amount = np.diff(values[rows]) if grows else values[rows][1:]
        rate[rows[1:]] = np.divide(amount, seconds, out=np.full(len(amount), np.nan), where=seconds > 0.0)
    how = "never changes" if known.min() == known.max() else "never falls"
    made.notes.append(
        f'{shown} {how}, so it is read as a counter, and its rate is its change over time (if a rate: "{column.unit}/s")'
        if grows
        else f"{shown} rises and falls, so it is read as the bytes since the row before"
    )
    return rate
