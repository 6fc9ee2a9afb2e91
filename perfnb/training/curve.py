"""A training's curve: one point per recorded step of all ranks together, with what the config says of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.config.mapping import has_knob, value_of
from perfnb.detector import Unmeasured
from perfnb.errors import ConfigError
from perfnb.training.statistics import Floats

SCHEDULES: Final = ("constant", "cosine", "linear", "restarts", "unknown")
"""What config `schedule` may say of the learning rate."""

_FIRST: Final = 3
"""Losses whose mean is where a run began."""

_SAME_RATE: Final = 1e-6  # relative: what float32 makes of a constant rate


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Points of a training in order of its steps; every array has one entry per point.

    Attributes
    ----------
    steps
        Number of each step.
    losses
        Mean over ranks; NaN and infinite where the training said so.
    is_told
        Whether the loss is known, be it finite or not.
    is_finite
        Whether loss and gradient norm were finite on all ranks.
    is_skipped
        Whether the gradient scaler skipped the step on any rank.
    validation_losses
        NaN where there was no evaluation, or where it was not finite.
    learning_rates, gradient_norms, clip_norms
        NaN where not told.
    batch_sizes
        Samples of all ranks; NaN where not told.
    ranks
        Ranks that were read.
    repeated_steps
        Steps that were recorded again after the training went back to an earlier state; the later rows count.
    planned_steps, warmup_steps, schedule
        What the config says; None and "unknown" where it says nothing.
    """

    steps: NDArray[np.int64]
    losses: Floats
    is_told: NDArray[np.bool_]
    is_finite: NDArray[np.bool_]
    is_skipped: NDArray[np.bool_]
    validation_losses: Floats
    learning_rates: Floats
    gradient_norms: Floats
    clip_norms: Floats
    batch_sizes: Floats
    ranks: tuple[int, ...]
    repeated_steps: tuple[int, ...]
    planned_steps: int | None
    warmup_steps: int
    schedule: str

    @property
    def points(self) -> NDArray[np.intp]:
        """Places of the points whose loss counts: told, and of a step that was not skipped."""
        return np.flatnonzero(self.is_told & ~self.is_skipped)

    @property
    def first_loss(self) -> float:
        """Mean of the first three losses that count: what the run began with; NaN where it has fewer, or one is not finite."""
        first = self.losses[self.points[:_FIRST]]
        return float(first.mean()) if len(first) == _FIRST and np.isfinite(first).all() else math.nan

    @property
    def done_steps(self) -> int:
        """Steps that the run has come to, counted from its first recorded one."""
        return int(self.steps[-1] - self.steps[0] + 1) if len(self.steps) else 0

    @property
    def is_constant_rate(self) -> bool | None:
        """Whether the learning rate stayed the same after warm-up; None where neither rates nor the schedule are known."""
        rates = self.learning_rates[np.isfinite(self.learning_rates) & (self.steps - self.steps[:1] >= self.warmup_steps)]
        if len(rates) > 1:
            return bool(np.ptp(rates) <= _SAME_RATE * float(np.abs(rates).max()))
        return None if self.schedule == "unknown" else self.schedule == "constant"

    def after_warmup(self, start: int = 0) -> NDArray[np.intp]:
        """Places of the points that count after warm-up and not before the given step of the run."""
        first = self.steps[0] + max(self.warmup_steps, start) if len(self.steps) else 0
        return self.points[self.steps[self.points] >= first]

    def upto(self, step: int) -> Curve:
        """The curve as it stood when that step ended."""
        return self._of(self.steps <= step)

    def _of(self, kept: NDArray[np.bool_]) -> Curve:
        arrays = {name: getattr(self, name)[kept] for name in _PER_POINT}
        rest = {name: getattr(self, name) for name in Curve.__slots__ if name not in _PER_POINT}
        return Curve(**arrays, **rest)


_PER_POINT: Final = (
    "steps",
    "losses",
    "is_told",
    "is_finite",
    "is_skipped",
    "validation_losses",
    "learning_rates",
    "gradient_norms",
    "clip_norms",
    "batch_sizes",
)


def curve_of(training: pd.DataFrame, config: Mapping[str, Any]) -> Curve:
    """Curve of a table `training` and of what the config says of the run.

    One rank's NaN makes the step non-finite. A step number that goes back, as after a restart from a checkpoint, makes what was
    recorded from there on before it void. Nothing is interpolated.

    Raises
    ------
    Unmeasured
        If the table has no rows.
    """
    if training.empty:
        message = "the table training has no rows: log the loss of each step, or read a log that holds it"
        raise Unmeasured(message)
    counted, repeated = _last_history(training)
    told = counted["loss"].notna() | (counted["finite"].notna() & ~counted["finite"].fillna(value=True))
    finite = counted["finite"].fillna(value=True).astype(bool) & ~np.isinf(counted["loss"]) & ~np.isinf(counted["gradient_norm"])
    rows = counted.assign(
        told=told,
        finite=finite,
        skipped=counted["skipped"].fillna(value=False).astype(bool),
    )
    points = rows.set_index("step") if len(rows["rank"].unique()) == 1 else _of_all_ranks(rows)
    points = points.sort_index()
    return Curve(
        steps=points.index.to_numpy(dtype=np.int64),
        losses=points["loss"].to_numpy(dtype=np.float64),
        is_told=points["told"].to_numpy(dtype=bool),
        is_finite=points["finite"].to_numpy(dtype=bool),
        is_skipped=points["skipped"].to_numpy(dtype=bool),
        validation_losses=_finite(points["validation_loss"]),
        learning_rates=_finite(points["learning_rate"]),
        gradient_norms=points["gradient_norm"].to_numpy(dtype=np.float64),
        clip_norms=_finite(points["clip_norm"]),
        batch_sizes=_finite(points["batch_size"]),
        ranks=tuple(sorted(int(rank) for rank in rows["rank"].unique())),
        repeated_steps=repeated,
        planned_steps=whole_number(config, "planned_steps"),
        warmup_steps=whole_number(config, "warmup_steps", least=0) or 0,
        schedule=_schedule(config),
    )


def whole_number(config: Mapping[str, Any], knob: str, least: int = 1) -> int | None:
    """A whole number that a config holds under a name; None where it holds none."""
    value = _value(config, knob)
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value == int(value)
    return int(value) if is_whole and value >= least else None


def text_of(config: Mapping[str, Any], knob: str) -> str:
    """A word that a config holds under a name, in lower case; empty where it holds none."""
    value = _value(config, knob)
    return value.lower() if isinstance(value, str) else ""


def evidence(curve: Curve, places: Any, statistic: Any, threshold: float, *, fires: Any, **more: Any) -> pd.DataFrame:
    """Evidence of a training detector: one row per look or step.

    Parameters
    ----------
    curve
        The curve.
    places
        Points at which the statistic was taken.
    statistic, threshold
        What was computed there and where it fires.
    fires
        Whether it does there.
    **more
        Further columns.

    Returns
    -------
    pandas.DataFrame
        One row per place: rank (the lowest, for all), step, statistic, threshold, fires, and the further columns.
    """
    steps = curve.steps[np.atleast_1d(np.asarray(places, dtype=np.intp))]
    rank = min(curve.ranks, default=0)
    return pd.DataFrame({"rank": rank, "step": steps, "statistic": statistic, "threshold": threshold, "fires": fires, **more})


def _finite(column: pd.Series) -> Floats:
    values = column.to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _of_all_ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per step: what the ranks' rows come to together."""
    by_step = rows.groupby("step", sort=True)
    points = by_step.agg(
        told=("told", "any"),
        finite=("finite", "all"),
        skipped=("skipped", "any"),
        validation_loss=("validation_loss", "mean"),
        learning_rate=("learning_rate", "first"),
        gradient_norm=("gradient_norm", "max"),
        clip_norm=("clip_norm", "first"),
    )
    loss = by_step["loss"].mean().mask(by_step["loss"].count().lt(by_step["told"].sum()))  # one rank's NaN is the step's
    return points.assign(loss=loss, batch_size=by_step["batch_size"].sum(min_count=1))


def _last_history(training: pd.DataFrame) -> tuple[pd.DataFrame, tuple[int, ...]]:
    """Rows of the last time that each step was run, and the steps that were run before."""
    kept, repeated = [], set()
    for _, rows in training.groupby("rank", sort=True):
        number = rows["step"].to_numpy(dtype=np.int64)
        lowest_after = np.minimum.accumulate(np.append(number[1:], np.iinfo(np.int64).max)[::-1])[::-1]
        is_void = number >= lowest_after
        repeated.update(number[is_void].tolist())
        kept.append(rows[~is_void])
    return pd.concat(kept, ignore_index=True), tuple(sorted(repeated))


def _value(config: Mapping[str, Any], knob: str) -> Any:
    try:
        return value_of(config, knob) if has_knob(config, knob) else None
    except ConfigError:
        return None


def _schedule(config: Mapping[str, Any]) -> str:
    told = text_of(config, "schedule")
    return told if told in SCHEDULES else "unknown"
