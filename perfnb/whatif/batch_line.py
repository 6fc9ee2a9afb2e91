"""How forward and backward grow with the batch: a line through the sizes that were seen, or bounds where only one was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from perfnb.analyses.batch_fit import FEWEST_OF_A_SIZE, LARGEST_ERROR, BatchFit, batch_fit
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.phase_work import COMPUTE, phase_times, phases_us
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

LARGEST_RATIO: Final = 2.0  # whatif contract, section 7
SMALLEST_BUSY_SHARE: Final = 0.6  # whatif contract, section 7
FIXED_SHARE: Final = Estimate(0.2, 0.0, 0.4)
"""Share of forward and backward that does not depend on the batch, where one size alone was seen: a prior, not validated.
Above 60 % busy at most 40 % are left that the batch may not change."""

_SIZES: Final = "steps at a second size, three or more: in this run, or in another one of the same job given in Run.earlier"


@dataclass(frozen=True, slots=True)
class SizeFactor:
    """How many times as long forward and backward take, and what that rests on, in a sentence."""

    factor: Estimate
    told: str


def size_factor(model: StepModel, now: float, after: float) -> SizeFactor | Unknown:
    """Time of forward and backward at another size over that of now.

    Parameters
    ----------
    model
        The model; forward and backward of the host's clock, or the device's work, are what grows.
    now, after
        Sizes of a micro-batch.
    """
    usual, times = _usual_size(model), after / now
    found = _line(model) if usual > 0.0 and not model.measured.is_device_job else None  # NaN: not recorded
    seen = (now, now) if found is None else (found[1] * now / usual, found[2] * now / usual)
    if not seen[0] / LARGEST_RATIO <= after <= seen[1] * LARGEST_RATIO:
        sizes = f"{seen[0]:g}" if found is None else f"{seen[0]:g} to {seen[1]:g}"
        reason = f"batches of {sizes} were seen, and {after:g} is more than {LARGEST_RATIO:g} times beyond: no line holds so far"
        return Unknown(reason, f"a change by at most {LARGEST_RATIO:g} times; then, from a run at that size, the next")
    if found is not None:
        fit = found[0]
        if fit.error > LARGEST_ERROR:
            reason = f"forward and backward lie {fit.error:.0%} off a line through the sizes that were seen"
            return Unknown(reason, "steps at both sizes while nothing else runs")
        return _of_line(fit, usual, times)
    busy = _busy_share(model)
    if isinstance(busy, Unknown):
        return busy
    if busy < SMALLEST_BUSY_SHARE:
        what = "the device works" if model.measured.is_device_job else "forward and backward take"
        reason = f"one batch size was seen, and {what} {busy:.0%} of the step, so what the size changes is not known"
        return Unknown(reason, _SIZES)
    fixed = FIXED_SHARE
    told = (
        f"one batch size was seen: {fixed.value:.0%} ({fixed.low:.0%} to {fixed.high:.0%}) of the work is taken not to depend "
        "on it (a prior)"
    )
    return SizeFactor(_at(fixed, times), told)


def _of_line(fit: BatchFit, usual: float, times: float) -> SizeFactor:
    """Factor of a fitted line at the mean step; its interval from the line's deviation."""
    here = fit.alpha_us + fit.beta_us * usual
    factor = max((fit.alpha_us + fit.beta_us * usual * times) / here, 1e-3)
    told = (
        f"forward and backward take {max(fit.alpha_us, 0.0) / 1e3:.3g} ms + {fit.beta_us / 1e3:.3g} ms per sample, by a line "
        f"through the sizes that were seen, {fit.error:.1%} off it"
    )
    width = fit.error * abs(times - 1.0)
    return SizeFactor(Estimate(factor, factor * (1.0 - width), factor * (1.0 + width)), told)


def _at(fixed: Estimate, times: float) -> Estimate:
    ends = [share + (1.0 - share) * times for share in (fixed.value, fixed.low, fixed.high)]
    return Estimate(ends[0], min(ends), max(ends))


def _line(model: StepModel) -> tuple[BatchFit, float, float] | None:
    """Line through forward and backward of this run and of earlier ones of the job, by samples of a step, and its ends."""
    sizes, times = [], []
    for run in (model.run, *model.run.earlier):
        found = _sized(run)
        if found is not None:
            sizes.append(found[0])
            times.append(found[1])
    if not sizes:
        return None
    every = pd.concat(sizes, ignore_index=True)
    fit = batch_fit(every, pd.concat(times, ignore_index=True))
    counts = every.value_counts()
    often = counts.index[counts >= FEWEST_OF_A_SIZE]
    return None if fit is None else (fit, float(min(often)), float(max(often)))


def _sized(run: Run) -> tuple[pd.Series, pd.Series] | None:
    """Samples, and time of forward and backward, of each step of a run but its first."""
    steps = tuple(sorted({int(step) for step in run.steps["step"].unique()}))[1:]
    known = phase_times(run, steps)
    if not steps or not set(COMPUTE) <= known.names():
        return None
    recorded = run.training.groupby("step")["batch_size"].mean().reindex(steps)
    return recorded.reset_index(drop=True), pd.Series(known.total_us(COMPUTE))


def _usual_size(model: StepModel) -> float:
    """Mean samples of the steady steps."""
    recorded = model.run.training.groupby("step")["batch_size"].mean().reindex(list(model.measured.numbers))
    return float(recorded.mean())


def _busy_share(model: StepModel) -> float | Unknown:
    """Share of the step in which what grows with the batch is at work."""
    if not model.measured.is_device_job:
        compute = phases_us(model, *COMPUTE)
        rest = model.before_us - _loading_us(model)
        return compute if isinstance(compute, Unknown) else compute / rest if rest > 0.0 else 0.0
    shares = []
    for rank in model.measured.ranks:
        if not isinstance(rank.graph, Timeline):
            return Unknown("the run has no trace to replay", "a trace of host and device") if rank.graph is None else rank.graph
        ops = rank.graph.ops
        busy = ops.loc[ops["kind"].ne("communication"), "duration_us"].sum()
        shares.append(float(busy / np.diff(rank.graph.edges_us).sum()))
    return min(shares)


def _loading_us(model: StepModel) -> float:
    per_rank = [[sum(each.total_us for each in step) for step in rank.batches] for rank in model.measured.ranks]
    return float(np.mean(per_rank))
