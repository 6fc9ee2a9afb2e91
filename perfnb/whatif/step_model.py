"""`predict`: all changes edit one model of the step, which is simulated once, with an interval or a reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.whatif.loader_limits import within_limits
from perfnb.whatif.loader_settings import DEFAULT_PREFETCH
from perfnb.whatif.memory_beside import memory_part, memory_problem, predict_peak
from perfnb.whatif.model import StepModel
from perfnb.whatif.step_simulation import half_widths, replay_problem, simulated_step_us, simulated_steps_us
from perfnb.whatif.transform import Transform, model_names, transforms
from perfnb.whatif.uncertainty import Calibration, Estimate, draw_rows, draws_half_width, spread
from perfnb.whatif.unmodelled import OF_THE_LOSS, unmodelled
from perfnb.whatif.wanted_changes import wanted_changes

__all__ = ["StepModel", "edited", "knobs", "predict", "shadow"]

Metric = Literal["step_us", "sample_us", "memory_bytes"]

LARGEST_LOADER_ERROR: Final = 0.20
"""Of the unchanged step. Whatif contract, section 3: .10 where predictions are not scaled to the measured step; these are scaled,
and what is missed widens the interval."""
FEW_STEPS: Final = 10
_FEW_STEPS_ERROR: Final = 0.10

_replayed: WeakKeyDictionary[Run, dict[tuple[int, float, int, bool], float]] = WeakKeyDictionary()


def predict(
    run: Run,
    changes: Mapping[str, Any] | Sequence[Change],
    config: Mapping[str, Any] | None = None,
    *,
    metric: Metric | None = None,
    calibration: Calibration | None = None,
    draws: int = 40,
    seed: int = 0,
) -> Prediction | Unknown:
    """Mean step after changes, with an interval that is meant to hold the actual value in 80 % of cases; or why it is unknown.

    All changes go into one model, which is simulated once: shares are never added. Before is measured, after is simulated.

    Parameters
    ----------
    run
        A run without the changes.
    changes
        Knob to value after, or changes.
    config
        The training's config; the run's own by default.
    metric
        `step_us`: mean duration of the steady steps; `sample_us`: the same per sample of a rank. By default per step, and per
        sample where the changes alter how many samples a step has.
    calibration
        Track record of earlier predictions; without it the basis is "prior".
    draws
        Bootstrap draws: 10 while a slider moves, 40 at rest, 200 for a report.
    seed
        Of the draws.

    Returns
    -------
    Prediction or Unknown
        The same arguments give the same answer.

    Raises
    ------
    ConflictingChanges
        If two changes name one knob.

    Examples
    --------
    >>> import json, pathlib, perfnb
    >>> run = perfnb.read_trace("data/samples/slow_loader")
    >>> config = json.loads(pathlib.Path("data/samples/slow_loader/config.json").read_text())
    >>> perfnb.predict(run, {"num_workers": 2}, config).verdict
    'faster'
    """
    return _answer(run, changes, config, metric, calibration, draws, seed, is_shadow=False)


def shadow(
    run: Run,
    changes: Mapping[str, Any] | Sequence[Change],
    config: Mapping[str, Any] | None = None,
    *,
    metric: Metric | None = None,
    draws: int = 40,
    seed: int = 0,
) -> Prediction | Unknown:
    """What `predict` would have said of a run that it refuses because of how it was recorded; for benchmarks, never for users.

    Skips the refusals that hold for every model (whatif contract, section 3: too few or unsteady steps, a model that misses the
    unchanged run), so that they can be scored. What a single model cannot know stays unknown.
    """
    return _answer(run, changes, config, metric, None, draws, seed, is_shadow=True)


def edited(
    run: Run, changes: Sequence[Change], config: Mapping[str, Any] | None = None, *, is_shadow: bool = False
) -> StepModel | Unknown:
    """The model of a run with all changes in, or which change cannot be made, and why.

    One `Unknown` makes the whole answer unknown.
    """
    problem = None if is_shadow else memory_problem(run, changes, config)
    if problem is not None:
        return problem
    model = StepModel.from_run(run, config, is_shadow=is_shadow)
    if isinstance(model, Unknown):
        return model
    known = transforms()
    wanted = sorted((each for each in changes if each.before != each.after), key=lambda each: each.knob)
    for change in wanted:
        found = known.get(change.knob)
        if found is None and change.knob in OF_THE_LOSS and any(each.knob in known for each in wanted):
            text = f"{change.knob} goes along and takes no time; what it does to the loss is not predicted"
            model = replace(model, assumptions=(*model.assumptions, text))
            continue
        if found is None:
            return unmodelled(change)
        lacking = _lacking(found, run)
        made = found.function(model, change) if lacking is None else lacking
        if isinstance(made, Unknown):
            return Unknown(f"{change}: {made.reason}", made.needs)
        model = made
    return _settled(model)


def knobs() -> tuple[str, ...]:
    """Knobs that there is a model of, in alphabetical order."""
    return tuple(sorted(transforms()))


def _answer(
    run: Run,
    changes: Mapping[str, Any] | Sequence[Change],
    config: Mapping[str, Any] | None,
    metric: str | None,
    calibration: Calibration | None,
    draws: int,
    seed: int,
    *,
    is_shadow: bool,
) -> Prediction | Unknown:
    if metric == "memory_bytes":
        return predict_peak(run, changes, config)
    if metric not in (None, "step_us", "sample_us"):
        return Unknown(f"no model of {metric}: step_us, sample_us and memory_bytes are the metrics there are", "predict step_us")
    config = run.config if config is None else config
    wanted = wanted_changes(changes, config)
    if isinstance(wanted, Unknown):
        return wanted
    model = edited(run, wanted, config, is_shadow=is_shadow)
    if isinstance(model, Unknown):
        return model
    already = tuple(f"{change.knob} is {change.after} already" for change in wanted if change.before == change.after)
    changed = tuple(change for change in wanted if change.before != change.after)
    per_step = 1.0
    if metric == "sample_us" or (metric is None and model.samples_ratio != 1.0):
        found = samples_per_step(run, config)
        if isinstance(found, Unknown):
            return found
        metric, per_step = "sample_us", found
    if not changed:
        now = model.before_us / per_step
        return Prediction(metric or "step_us", now, now, now, now, "prior", (*already, "nothing changes"), "none", 0.0)
    made = _predicted(model, changed, already, calibration or Calibration(), draws, seed, metric or "step_us", per_step)
    return made if isinstance(made, Unknown) else replace(made, memory=memory_part(run, changed, config))


def samples_per_step(run: Run, config: Mapping[str, Any]) -> float | Unknown:
    """Samples of a rank in a step, all micro-batches together: as recorded, else as the config says."""
    recorded = run.training["batch_size"].dropna()
    if len(recorded):
        return float(recorded.median())
    size = value_of(config, "batch_size") if has_knob(config, "batch_size") else None
    parts = value_of(config, "gradient_accumulation_steps") if has_knob(config, "gradient_accumulation_steps") else 1
    if isinstance(size, int) and isinstance(parts, int) and size > 0 and parts > 0:
        return float(size * parts)
    reason = "a step has another number of samples after the change, and how many it has now is not known"
    return Unknown(reason, 'batch_size in the config; or metric="step_us", which compares steps of different size')


def _lacking(found: Transform, run: Run) -> Unknown | None:
    for table in found.needs:
        if getattr(run, table).empty:
            return Unknown(run.missing.get(table, f"the run has no {table}"), f"a run with {table}")
    return None


def _settled(model: StepModel) -> StepModel | Unknown:
    """The model once all changes are in: library rules that join several knobs, and what crowded cores mean."""
    for knob, value in (("prefetch_factor", model.prefetch), ("persistent_workers", model.persistent_workers)):
        if value and model.workers == 0:
            reason = f"{knob}: torch raises ValueError for {knob} while num_workers is 0"
            return Unknown(reason, "a change of num_workers beside it")
    limited = within_limits(model)
    if isinstance(limited, Unknown):
        return limited
    model = limited
    if any(edit.is_unblocked for edit in model.device_edits.values()) and not _is_pinned(model):
        reason = "non_blocking: copies out of memory that is not pinned hold up the host all the same"
        return Unknown(reason, "a change of pin_memory beside it")
    if model.is_replayed:
        problem = replay_problem(model)
        if problem is not None:  # an Unknown is falsy
            return problem
    estimates = dict(model.estimates)
    if not model.is_crowded or not model.loader.is_simulated(model.workers, model.recorded_workers):
        estimates = {name: estimate for name, estimate in estimates.items() if name not in ("cpu_share", "threads")}
    elif "host_factor" in estimates:
        estimates["host_factor"] = Estimate.exactly(1.0)  # beyond the cores the clock rule alone slows the host
    return replace(model, estimates=MappingProxyType(estimates))


def _is_pinned(model: StepModel) -> bool:
    known = has_knob(model.config, "pin_memory") and bool(value_of(model.config, "pin_memory"))
    return known or model.loader.is_pinned


def _predicted(
    model: StepModel,
    changes: Sequence[Change],
    idle: tuple[str, ...],
    calibration: Calibration,
    draws: int,
    seed: int,
    metric: str,
    per_step: float,
) -> Prediction | Unknown:
    steps = len(model.measured.step_us)
    rows = range(steps)
    before = model.before_us
    unchanged = _unchanged_us(model)
    self_error = unchanged / before - 1.0
    if abs(self_error) > LARGEST_LOADER_ERROR and not model.is_shadow:
        reason = f"the model gives {unchanged / 1e3:.1f} ms for the unchanged step of {before / 1e3:.1f} ms ({self_error:+.0%})"
        return Unknown(reason, "a quieter run: time in the run queue is not modelled")
    ahead = model.workers * (model.loader.prefetch or DEFAULT_PREFETCH)
    drawn_rows = draw_rows(steps, draws, ahead=ahead, seed=seed)
    simulated, *drawn = simulated_steps_us(model, [(rows, {}), *((draw, {}) for draw in drawn_rows)])
    if not min(simulated, unchanged) > 0.0:
        return Unknown("the changes leave no time in the step", "a run in which the parts of a step are told apart")
    errors = list(model.errors.values())
    if model.measured.is_traced and steps < FEW_STEPS:
        errors.append(max(_FEW_STEPS_ERROR - max(errors, default=0.0), 0.0))
    down, up = half_widths(model, rows, simulated)
    shared = (draws_half_width(drawn), *errors, self_error)
    down, up = spread(*shared, down), spread(*shared, up)
    name = model_names(_recorded_as(model))
    knob = "+".join(sorted(change.knob for change in changes))
    after = simulated * before / unchanged  # what the model misses of the unchanged step is taken to stay in proportion
    before, after = before / per_step, after / (per_step * (model.samples_ratio if metric == "sample_us" else 1.0))
    found = calibration.interval(after, down, up, model=name, knob=knob)
    assumptions = (_rests_on(model), *idle, *model.assumptions)
    width, uncalibrated = (down + up) / 2.0, None if found.after == after else after
    return Prediction(metric, before, found.after, found.low, found.high, found.basis, assumptions, name, width, uncalibrated)


def _recorded_as(model: StepModel) -> set[str]:
    """Models by which a track record counts: what is right of a loader that was probed says nothing of one that was not."""
    unprobed = {"loader_queue"} if model.loader.probe is None else set()
    return {f"{each}_unprobed" if each in unprobed else each for each in model.errors}


def _unchanged_us(model: StepModel) -> float:
    """The step without the changes, simulated as that with them; of a replay it is kept for as long as the run lives."""
    rows = range(len(model.measured.step_us))
    if not model.is_replayed:
        return simulated_step_us(model.unchanged, rows, {})
    is_probed = model.recorded_workers > 0 and model.loader.probe is not None
    kept, key = _replayed.setdefault(model.run, {}), (model.recorded_workers, model.cores, len(rows), is_probed)
    if key not in kept:
        kept[key] = simulated_step_us(replace(model.unchanged, is_replayed=True), rows, {})
    return kept[key]


def _rests_on(model: StepModel) -> str:
    kind = "a replay of the trace" if model.is_replayed else "the trace" if model.measured.is_traced else "the phases of steps"
    return f"made from {kind} over {len(model.measured.step_us)} steady steps"
