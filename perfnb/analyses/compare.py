"""Two runs side by side, per step and with spread: operators, kernels and the parts of a step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.bootstrap import INTERVAL, resamples
from perfnb.device_time import BREAKDOWN_COLUMNS, device_breakdown
from perfnb.errors import PerfnbError
from perfnb.launches import enclosing, launches, step_at
from perfnb.nesting import ROOT
from perfnb.run import Run

FEWEST_STEPS: Final = 2
"""Steps that each side needs for an interval: one step shows no spread."""

_DRAWS: Final = 400
_KEYS: Final = ("category", "name")
_NUMBER: Final = re.compile(r"#\d+$")  # "ProfilerStep#7": the number of the step is no part of what it is
_WHOLE: Final = 0  # number of the one window of a run without steps

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _PerStep:
    """Figures of each name in each used step: arrays have one row per name, one column per step."""

    names: pd.MultiIndex
    calls: Floats
    time_us: Floats
    self_us: Floats
    steps: int


def compare_operators(
    before: Run,
    after: Run,
    *,
    categories: Sequence[str] = ("operator", "annotation", "runtime"),
    ranks: Sequence[int] | None = None,
) -> pd.DataFrame:
    r"""Host operators of two runs, per step: what was added, removed, slower, faster.

    Parameters
    ----------
    before, after
        The runs; they may have recorded different numbers of steps.
    categories
        Categories of `host_ops` to compare.
    ranks
        Ranks to compare, all by default; figures are means over ranks and steps.

    Returns
    -------
    pandas.DataFrame
        One row per (category, name), largest change first: change ("added", "removed", "slower", "faster", "unchanged": the
        interval holds 0, or "unclear": too few steps for an interval and the times differ), calls_before, calls_after,
        time_before_us, time_after_us, self_before_us, self_after_us (without the operators inside), difference_us, low_us,
        high_us (80 % bootstrap interval over steps), steps_before, steps_after (0: no steps recorded, figures of the whole
        recording). First and last steps are left out where two or more remain.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> one = table_from_text("host_ops", "rank thread category name start_us duration_us\n0 1 operator aten::add 0 4")
    >>> two = table_from_text("host_ops", "rank thread category name start_us duration_us\n0 1 operator aten::mul 0 5")
    >>> compare_operators(Run(host_ops=one), Run(host_ops=two))[["name", "change", "difference_us"]]
            name   change  difference_us
    0  aten::mul    added            5.0
    1  aten::add  removed           -4.0
    """
    _refuse_unrecorded(before, after, "host_ops")
    return _compared(*(_host_figures(run, categories, ranks) for run in (before, after)))


def compare_kernels(before: Run, after: Run, *, ranks: Sequence[int] | None = None) -> pd.DataFrame:
    """Kernels, copies and memsets of two runs, per device step: what was added, removed, slower, faster.

    Parameters
    ----------
    before, after
        The runs; they may have recorded different numbers of steps.
    ranks
        Ranks to compare, all by default; figures are means over ranks and steps.

    Returns
    -------
    pandas.DataFrame
        As `compare_operators`, category being the kind of the device op. What runs before the first step is left out.
    """
    _refuse_unrecorded(before, after, "device_ops")
    return _compared(*(_device_figures(run, ranks) for run in (before, after)))


def compare_steps(before: Run, after: Run, *, ranks: Sequence[int] | None = None) -> pd.DataFrame:
    """Duration of a step and the parts of its device time, before and after.

    Parameters
    ----------
    before, after
        The runs; they may have recorded different numbers of steps.
    ranks
        Ranks to compare, all by default; figures are means over ranks, devices and steps.

    Returns
    -------
    pandas.DataFrame
        One row per quantity (step_us on the host clock, then the columns of `device_breakdown` by step): before_us, after_us,
        difference_us, low_us, high_us, speedup (before over after), speedup_low, speedup_high (80 % bootstrap intervals over
        steps), steps_before, steps_after. Quantities that only one run has are left out.
    """
    one, two = (_step_figures(run, ranks) for run in (before, after))
    rows = []
    for quantity in [name for name in one if name in two]:
        first, second = one[quantity], two[quantity]
        a, b = _resampled(first[None, :], 0)[0], _resampled(second[None, :], 1)[0]
        known = min(len(first), len(second)) >= FEWEST_STEPS
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios, ratio = a / b, first.mean() / second.mean()
        spread = np.quantile(b - a, INTERVAL) if known else (np.nan, np.nan)
        ratio_spread = np.quantile(ratios, INTERVAL) if known and np.isfinite(ratios).all() else (np.nan, np.nan)
        figures = (first.mean(), second.mean(), second.mean() - first.mean(), *spread, ratio if np.isfinite(ratio) else np.nan)
        rows.append((quantity, *figures, *ratio_spread, len(first), len(second)))
    columns = ["quantity", "before_us", "after_us", "difference_us", "low_us", "high_us"]
    return pd.DataFrame(rows, columns=[*columns, "speedup", "speedup_low", "speedup_high", "steps_before", "steps_after"])


def largest_changes(comparison: pd.DataFrame, rows: int = 20) -> pd.DataFrame:
    """The rows of `compare_operators` or `compare_kernels` that changed most, for `perfnb.charts.compare.compare_chart`."""
    return comparison[comparison["difference_us"].ne(0)].head(rows).reset_index(drop=True)


def _compared(before: _PerStep, after: _PerStep) -> pd.DataFrame:
    names = before.names.union(after.names, sort=False)
    sides = [side.names.get_indexer(names) for side in (before, after)]
    calls, times, own = (
        [_rows(getattr(side, figure), at) for side, at in zip((before, after), sides, strict=True)]
        for figure in ("calls", "time_us", "self_us")
    )
    difference = times[1].mean(axis=1) - times[0].mean(axis=1)
    low = high = np.full(len(names), np.nan)
    if min(before.steps, after.steps) >= FEWEST_STEPS:
        low, high = np.quantile(_resampled(times[1], 1) - _resampled(times[0], 0), INTERVAL, axis=1)
    change = np.select(
        [sides[0] < 0, sides[1] < 0, low > 0, high < 0, (low <= 0) & (high >= 0), difference == 0],
        ["added", "removed", "slower", "faster", "unchanged", "unchanged"],
        "unclear",
    )
    frame = pd.DataFrame(
        {
            "category": names.get_level_values(0),
            "name": names.get_level_values(1),
            "change": change,
            "calls_before": calls[0].mean(axis=1),
            "calls_after": calls[1].mean(axis=1),
            "time_before_us": times[0].mean(axis=1),
            "time_after_us": times[1].mean(axis=1),
            "self_before_us": own[0].mean(axis=1),
            "self_after_us": own[1].mean(axis=1),
            "difference_us": difference,
            "low_us": low,
            "high_us": high,
            "steps_before": before.steps,
            "steps_after": after.steps,
        }
    )
    return frame.iloc[np.argsort(-np.abs(difference), kind="stable")].reset_index(drop=True)


def _rows(figures: Floats, at: NDArray[np.intp]) -> Floats:
    """Rows at the given places; zeros for -1: an operator that is not there was called no time in no time."""
    return np.vstack([figures, np.zeros((1, figures.shape[1]))])[at]


def _resampled(figures: Floats, seed: int) -> Floats:
    """Mean of each row in each of the resamples of its columns."""
    steps = figures.shape[1]
    drawn = resamples(steps, _DRAWS, seed=seed)
    weights = np.stack([np.bincount(rows, minlength=steps) for rows in drawn], axis=1) / steps
    return np.asarray(figures @ weights)


def _refuse_unrecorded(before: Run, after: Run, table: str) -> None:
    """What one side did not record is no work that went away."""
    for side, run in (("before", before), ("after", after)):
        if table in run.missing:
            message = f"the run {side} has no {table} to compare: {run.missing[table]}"
            raise PerfnbError(message)


def _used_steps(run: Run, ranks: Sequence[int] | None) -> NDArray[np.int64]:
    """Numbers of the steps that count: without the first and last recorded where two or more remain."""
    steps = run.steps if ranks is None else run.steps[run.steps["rank"].isin(list(ranks))]
    is_edge = steps.groupby("step")["is_edge"].any()
    inner = is_edge.index[~is_edge]
    return np.asarray(inner if len(inner) >= FEWEST_STEPS else is_edge.index, dtype=np.int64)


def _host_figures(run: Run, categories: Sequence[str], ranks: Sequence[int] | None) -> _PerStep:
    host = run.host_ops[run.host_ops["category"].isin(list(categories))]
    host = host if ranks is None else host[host["rank"].isin(list(ranks))]
    duration = host["duration_us"].to_numpy()
    parent = enclosing(host)
    inside = np.bincount(parent[parent != ROOT], weights=duration[parent != ROOT], minlength=len(host))
    step = step_at(run.steps, host["rank"].to_numpy(), host["start_us"].to_numpy())
    return _figures(run, host.assign(self_us=duration - inside[: len(host)]), step, ranks)


def _device_figures(run: Run, ranks: Sequence[int] | None) -> _PerStep:
    ops = run.device_ops
    step = _device_steps(run)
    if ranks is not None:
        chosen = ops["rank"].isin(list(ranks)).to_numpy()
        ops, step = ops[chosen], step[chosen]
    return _figures(run, ops.rename(columns={"kind": "category"}).assign(self_us=ops["duration_us"]), step, ranks)


def _device_steps(run: Run) -> pd.Series:
    """Device step of each device op: each begins with the first op that the host step launched; NA before the first."""
    launched = launches(run)["step"].to_numpy(dtype=np.float64, na_value=np.nan)
    ops = run.device_ops
    start = ops["start_us"].to_numpy()
    device = ops["device"].to_numpy(dtype=np.float64, na_value=-1.0)
    lane = ops["rank"].to_numpy() * 4096.0 + device  # a machine has fewer devices than that
    step = np.full(len(ops), np.nan)
    for own in (np.flatnonzero(lane == number) for number in np.unique(lane)):
        known = own[~np.isnan(launched[own])]
        numbers, inverse = np.unique(launched[known], return_inverse=True)
        if not len(numbers):
            continue
        begins = np.full(len(numbers), np.inf)
        np.minimum.at(begins, inverse, start[known])
        begins = np.maximum.accumulate(begins)
        at = np.searchsorted(begins, start[own], side="right") - 1
        step[own] = np.where(at >= 0, numbers[np.maximum(at, 0)], np.nan)
    return pd.Series(pd.arrays.IntegerArray(np.nan_to_num(step).astype(np.int64), np.isnan(step)))


def _figures(run: Run, events: pd.DataFrame, step: pd.Series, ranks: Sequence[int] | None) -> _PerStep:
    """Calls, time and own time of each (category, name) in each used step, means over the ranks."""
    used = _used_steps(run, ranks)
    per_run = len(used) == 0
    number = np.full(len(events), _WHOLE) if per_run else step.to_numpy(dtype=np.int64, na_value=-1)
    used = np.array([_WHOLE]) if per_run else used
    column = np.searchsorted(used, number).clip(max=len(used) - 1)
    counted = used[column] == number
    events, column = events[counted], column[counted]
    category, name = (events[key].astype("category").cat for key in _KEYS)
    plain = [_NUMBER.sub("", str(each)) for each in name.categories]
    names, number_of = np.unique(np.array(plain, dtype=object), return_inverse=True)
    key = category.codes.to_numpy().astype(np.int64) * max(len(names), 1) + number_of[name.codes.to_numpy()]
    keys, inverse = np.unique(key, return_inverse=True)
    shape = (len(keys), len(used))
    divisor = max(events["rank"].nunique(), 1)
    cell = inverse * len(used) + column

    def summed(weights: Floats | None) -> Floats:
        return np.bincount(cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape) / divisor

    kinds = np.array([str(each) for each in category.categories], dtype=object)
    width = max(len(names), 1)
    return _PerStep(
        names=pd.MultiIndex.from_arrays([kinds[keys // width], names[keys % width]], names=_KEYS),
        calls=summed(None),
        time_us=summed(events["duration_us"].to_numpy()),
        self_us=summed(events["self_us"].to_numpy()),
        steps=0 if per_run else len(used),
    )


def _step_figures(run: Run, ranks: Sequence[int] | None) -> dict[str, Floats]:
    """Each quantity's mean over ranks and devices in each used step."""
    used = _used_steps(run, ranks)
    found = {}
    sources: list[tuple[pd.DataFrame, Sequence[str]]] = [(run.steps.rename(columns={"duration_us": "step_us"}), ["step_us"])]
    by: Literal["step"] = "step"
    if len(run.device_ops) and len(used):
        sources.append((device_breakdown(run, by=by), BREAKDOWN_COLUMNS))
    for table, columns in sources:
        own = table[table["step"].isin(used)]
        own = own if ranks is None else own[own["rank"].isin(list(ranks))]
        if len(own):
            means = own.groupby("step")[list(columns)].mean()
            found.update({name: means[name].to_numpy(dtype=np.float64) for name in columns})
    return found
