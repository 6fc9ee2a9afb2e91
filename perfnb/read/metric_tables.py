"""Tables of a run out of a log's columns: training, metrics, allocator, and samples of several inputs together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd

from perfnb.read.metric_column import Floats
from perfnb.read.metric_parts import Part
from perfnb.read.metric_samples import Samples
from perfnb.run import Machine

_LARGEST_WHOLE: Final = 2.0**62  # larger numbers fit no column of whole ones
_ALLOCATOR_KEYS: Final = ["rank", "step", "device"]

Value = tuple[Part, Floats, str, Floats]


def shares(samples: list[Samples], parts: list[Part], row_us: list[Floats]) -> list[Value]:
    """Shares of used memory that no table has a column for, as metrics."""
    return [(part, at, name, values) for one, part, at in zip(samples, parts, row_us, strict=True) for name, values in one.shares]


def rest(parts: list[Part], row_us: list[Floats]) -> list[Value]:
    """Values that no table has a column for: unknown names as they are written, known ones by their own."""
    found: list[Value] = []
    for part, at in zip(parts, row_us, strict=True):
        found += [(part, at, name, values) for name, values in part.rest]
        for column, values in part.found:
            quantity = column.meaning.quantity
            if quantity.table == "metrics" or (quantity.table == "training" and part is not parts[0]):
                found.append((part, at, quantity.column, values))
        if part.epoch is not None and (part.epoch != np.floor(part.epoch)).any():
            found.append((part, at, "epoch", part.epoch))
    return found


def metrics_table(values: list[Value]) -> pd.DataFrame:
    """Rows of table metrics: every value of every column, by its name."""
    names = list(dict.fromkeys(name for _, _, name, _ in values))
    codes = {name: code for code, name in enumerate(names)}
    frames = []
    for part, at, name, numbers in values:
        there = ~np.isnan(numbers)
        step = np.full(part.size, np.nan) if part.step is None else part.step
        frames.append(
            pd.DataFrame(
                {
                    "rank": (part.rank if part.rank is not None else np.zeros(part.size))[there],
                    "step": step[there],
                    "time_us": at[there],
                    "name": pd.Categorical.from_codes(np.full(int(there.sum()), codes[name], dtype=np.int64), pd.Index(names)),
                    "value": numbers[there],
                }
            )
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def allocator_table(samples: list[Samples], parts: list[Part], row_us: list[Floats]) -> tuple[pd.DataFrame, list[Value]]:
    """Rows of table allocator, one per rank, step and GPU; those without a step are placed by their moment."""
    ends = pd.DataFrame({"rank": parts[0].rank, "step": parts[0].step, "time_us": row_us[0]}).dropna().sort_values("time_us")
    frames, unplaced = [], []
    for one, part, at in zip(samples, parts, row_us, strict=True):
        frame = one.allocator
        if frame.empty:
            continue
        if "step" not in frame:
            frame = frame[frame["time_us"].notna()].sort_values("time_us")
            if frame.empty or ends.empty:
                part.notes.append(
                    f"{part.origin} has neither steps nor moments within steps: its allocated memory is among the metrics"
                )
                unplaced += [
                    (part, at, column.meaning.quantity.name, values)
                    for column, values in part.found
                    if column.meaning.quantity.table == "allocator"
                ]
                continue
            frame = pd.merge_asof(frame, ends, on="time_us", by="rank", direction="forward").dropna(subset=["step"])
            part.notes.append(f"{part.origin}: rows belong to the first step of the training log that ends after them")
        frames.append(frame)
    if not frames:
        return pd.DataFrame(), unplaced
    joined = pd.concat(frames, ignore_index=True).sort_values("time_us", kind="stable")
    joined = joined.drop(columns="row")
    how = {name: "max" if name.startswith("peak_") else "last" for name in joined.columns if name not in _ALLOCATOR_KEYS}
    once = joined.groupby(_ALLOCATOR_KEYS, dropna=False, as_index=False).agg(how)
    return _whole_bytes(once), unplaced


def together(frames: Iterable[pd.DataFrame], order: list[str]) -> pd.DataFrame:
    """Rows of samples of several inputs, in order of time."""
    found = [frame for frame in frames if len(frame)]
    if not found:
        return pd.DataFrame()
    joined = pd.concat([frame.dropna(axis=1, how="all") for frame in found], ignore_index=True)
    return _whole_bytes(joined.sort_values([name for name in order if name in joined], kind="stable"))


def _whole_bytes(frame: pd.DataFrame) -> pd.DataFrame:
    """Sizes as whole bytes: 0.1 GiB is no whole number of them."""
    names = [name for name in frame.columns if name.endswith("_bytes") or name in ("retries", "ooms")]
    return frame.assign(**{name: frame[name].round().where(frame[name].abs() < _LARGEST_WHOLE) for name in names})


def machine(gpu: pd.DataFrame) -> Machine:
    """What the samples tell of the machine: the memory of its GPUs, where they are those of one rank."""
    sizes = gpu.dropna(subset=["gpu", "memory_total_bytes"]).groupby("gpu")["memory_total_bytes"].max()
    if len(gpu["rank"].unique()) > 1 or sizes.index.to_list() != list(range(len(sizes))):
        return Machine()  # whose GPUs these are is not known
    return Machine(device_memory_bytes=tuple(int(size) for size in sizes))


def training_table(part: Part, row_us: Floats) -> pd.DataFrame:
    """Rows of table training, one per rank and step, with whether loss and gradient norm are finite."""
    own = {column.meaning.quantity.column: (column, values) for column, values in part.found}
    named = {name: values for name, (column, values) in own.items() if column.meaning.quantity.table == "training"}
    if not named:
        return pd.DataFrame()
    frame = pd.DataFrame({"rank": part.rank, "step": part.step, "time_us": row_us, **named})
    telling = [(column, values) for name, (column, values) in own.items() if name in ("loss", "gradient_norm")]
    there = np.any([np.isfinite(values) | np.isinf(values) | column.is_nan for column, values in telling], axis=0)
    odd = np.any([np.isinf(values) | (column.is_nan & np.isnan(values)) for column, values in telling], axis=0)
    if telling:
        frame["finite"] = pd.Series(~odd, dtype="boolean").mask(~there)
    if "skipped" in frame:
        frame["skipped"] = frame["skipped"].ne(0).astype("boolean").mask(frame["skipped"].isna())
    if "micro_batches" in frame:
        frame["micro_batches"] = (
            frame["micro_batches"].where(frame["micro_batches"].abs() < _LARGEST_WHOLE).round().astype("Int64")
        )
    said = frame[list(named)].notna().any(axis=1) | (there if telling else False)
    return frame[said].drop_duplicates(["rank", "step"])
