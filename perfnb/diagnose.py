"""diagnose(run): what every detector finds, clears or cannot see in a run."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from perfnb.analyses.whole_window import NO_STEPS_NOTE, whole_window
from perfnb.bootstrap import INTERVAL, resamples
from perfnb.catalogue import detectors, training_detectors
from perfnb.detector import ConfigHint, Detector, Unmeasured
from perfnb.errors import NoStepsError
from perfnb.findings import Cleared, Diagnosis, Finding, Hint, NotMeasured
from perfnb.ground import Ground
from perfnb.memory_loss import measure_memory
from perfnb.run import Run
from perfnb.severity import FEWEST_STEPS, measure
from perfnb.training.diagnosis import in_precedence, measure_training

_DRAWS: Final = 500
_FEWEST_DEVICE_OPS: Final = 10  # a choice: fewer are one call of one operator, which says nothing of a training
_UNITS: Final = ("time", "memory", "opportunity")
_LOGGER: Final = logging.getLogger(__name__)


def diagnose(run: Run, *, earlier: Sequence[Run] = ()) -> Diagnosis:
    """Ranked bottlenecks of a run, what was looked at and is not limiting, and what could not be measured.

    Parameters
    ----------
    run
        A run from `read_trace`, or any that holds the tables.
    earlier
        Earlier runs of the same training: whether this one has become slower is told against those that are comparable.

    Returns
    -------
    Diagnosis
        Tables `.findings` (worst first), `.not_limiting`, `.not_measured`; every detector is in exactly one, or in `possible`
        where fewer than three steps could be used. A run without steps is not an error: every detector then says so. What the
        curve says of the training itself stands apart, in the same tables of `.training`.

    Examples
    --------
    >>> import perfnb
    >>> perfnb.diagnose(perfnb.read_trace("data/samples/healthy")).findings.empty
    True
    """
    run = replace(run, earlier=tuple(earlier)) if earlier else run
    return replace(_of_time_and_memory(run), training=_of_training(run))


def _of_training(run: Run) -> Diagnosis:
    """What the curve says of the training itself: what rests on counts first, the surest of it before the rest."""
    answers = in_precedence(_answer(each, run, NoStepsError()) for each in training_detectors())
    return Diagnosis(
        found=tuple(each for each in answers if isinstance(each, Finding)),
        possible=(),
        cleared=tuple(each for each in answers if isinstance(each, Cleared)),
        unmeasured=tuple(each for each in answers if isinstance(each, NotMeasured)),
        run_line=repr(run),
    )


def _of_time_and_memory(run: Run) -> Diagnosis:
    ground: Ground | NoStepsError
    try:
        ground = Ground.of(run)
    except NoStepsError as error:
        ground = error
    answers = [_answer(each, run, ground) for each in detectors()]
    whole = _of_the_whole_recording(run) if isinstance(ground, NoStepsError) else {}
    answers = [whole.get(each.detector, each) for each in answers]
    found = sorted((each for each in answers if isinstance(each, Finding)), key=_rank)
    cleared = tuple(each for each in answers if isinstance(each, Cleared))
    unmeasured = tuple(each for each in answers if isinstance(each, NotMeasured))
    hints = tuple(each for each in answers if isinstance(each, Hint))
    if isinstance(ground, NoStepsError):
        sure, maybe = ([each for each in found if (each.unit == "time") is timed] for timed in (False, True))
        notes = (*run.notes, NO_STEPS_NOTE) if whole else run.notes
        return Diagnosis(tuple(sure), tuple(maybe), cleared, unmeasured, run_line=repr(run), notes=notes, hints=hints)
    sure = [each for each in found if each.unit != "time" or _is_sure(each, ground)]
    step_us, low_us, high_us = _mean(ground.durations)
    return Diagnosis(
        found=tuple(sure),
        possible=tuple(each for each in found if each not in sure),
        cleared=cleared,
        unmeasured=unmeasured,
        step_us=step_us,
        low_us=low_us,
        high_us=high_us,
        steps_used=_steps_line(run, ground),
        parts=mean_parts(ground),
        run_line=repr(run),
        notes=run.notes,
        hints=hints,
    )


def _answer(detector: Detector, run: Run, ground: Ground | NoStepsError) -> Finding | Cleared | NotMeasured | Hint:
    """What one detector says; a failure of its own hides no other's answer."""
    try:
        if detector.unit == "training":
            return measure_training(detector, run)
        if detector.unit != "time":
            return measure_memory(detector, run, None if isinstance(ground, NoStepsError) else ground)
        if isinstance(ground, NoStepsError):
            return NotMeasured(detector.name, detector.family, str(ground))
        return measure(detector, ground)
    except (Unmeasured, NoStepsError) as reason:
        return NotMeasured(detector.name, detector.family, str(reason))
    except ConfigHint as hint:
        return Hint(detector.name, detector.family, str(hint))
    except Exception as error:
        _LOGGER.warning("detector %s failed", detector.name, exc_info=True)
        failure = f"failed: {type(error).__name__}: {error}"
        return NotMeasured(detector.name, detector.family, failure, traceback.format_exc())


def _of_the_whole_recording(run: Run) -> dict[str, Finding | Cleared | NotMeasured | Hint]:
    """What detectors of the device's computing say of a trace without steps, whose whole recording is taken for one.

    Losses are then possible at most. A handful of kernels is no training: nothing is said of them.
    """
    if len(run.device_ops) < _FEWEST_DEVICE_OPS:
        return {}
    one = whole_window(run)
    ground = Ground.of(one)
    return {each.name: _answer(each, one, ground) for each in detectors() if each.family == "device compute"}


def _is_sure(finding: Finding, ground: Ground) -> bool:
    """Whether a loss of time is a finding: with few steps, or where the device may hide it, it is possible at most."""
    return len(ground.durations) >= FEWEST_STEPS and not ground.is_bound_only(finding.category)


def _rank(finding: Finding) -> tuple[int, float]:
    """Time first, then memory, then what is unused; each worst first: shares of different things are not compared."""
    return _UNITS.index(finding.unit), -(finding.lost_us if finding.unit == "time" else finding.severity)


def mean_parts(ground: Ground) -> pd.DataFrame:
    """Mean time per step of each ledger part, on each step's critical rank (the mean over ranks where none waits).

    Returns
    -------
    pandas.DataFrame
        One row per part: clock, part, time_us, share (of the step); parts without time are left out.
    """
    per_rank = ground.ledger.groupby(["clock", "part", "rank", "step", "device"], dropna=False, sort=False, as_index=False)[
        "time_us"
    ].sum()
    per_rank = per_rank.groupby(["clock", "part", "rank", "step"], sort=False, as_index=False)[["time_us"]].mean()
    chosen = per_rank.merge(ground.work[["rank", "step", "is_critical"]], on=["rank", "step"])
    if ground.waits:
        chosen = chosen[chosen["is_critical"]]
    per_step = chosen.groupby(["clock", "part", "step"], sort=False, as_index=False)[["time_us"]].mean()
    totals = per_step.groupby(["clock", "part"], sort=False, as_index=False)[["time_us"]].sum()
    totals = totals.assign(time_us=totals["time_us"] / len(ground.durations))
    totals = totals.assign(share=totals["time_us"] / float(totals["time_us"].sum()))
    spent: pd.DataFrame = totals[totals["time_us"] > 0].reset_index(drop=True)
    return spent


def _mean(durations: pd.Series) -> tuple[float, float, float]:
    """Mean step with its 80 % interval."""
    values = durations.to_numpy()
    low, high = np.quantile(values[resamples(len(values), _DRAWS)].mean(axis=1), INTERVAL)
    return float(values.mean()), float(low), float(high)


def _steps_line(run: Run, ground: Ground) -> str:
    used, recorded = ground.steps["step"].nunique(), run.steps["step"].nunique()
    profiled = f", {run.steps['is_profiled'].sum()} under a profiler" if run.has_window else ""
    inferred = ", edges inferred from the DataLoader" if ground.steps["steps_inferred"].any() else ""
    return f"{used} of {recorded} steps{profiled}{inferred}"
