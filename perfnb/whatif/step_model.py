"""The model of a step that changes edit, and `predict`, which simulates it once all of them are in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakKeyDictionary

from perfnb.config.mapping import has_knob, value_of
from perfnb.intervals import Intervals
from perfnb.prediction import Change, Prediction, Unknown
from perfnb.run import Run
from perfnb.whatif.host_cuts import cut_programs
from perfnb.whatif.known_parts import Part, part_share
from perfnb.whatif.rank_model import Measured, measured
from perfnb.whatif.segments import Program
from perfnb.whatif.step_simulation import DEFAULT_PREFETCH, half_widths, replay_problem, simulated_step_us
from perfnb.whatif.transform import Transform, transforms
from perfnb.whatif.uncertainty import Calibration, Estimate, draw_rows, draws_half_width, spread
from perfnb.whatif.unmodelled import unmodelled
from perfnb.whatif.wanted_changes import wanted_changes

LARGEST_LOADER_ERROR: Final = 0.10  # whatif contract, section 3
FEW_STEPS: Final = 10
_FEW_STEPS_ERROR: Final = 0.10
_UNTRACED_DEVICE_GAIN: Final = Estimate(0.7, 0.5, 1.0)  # whatif contract, section 1: a prior
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})

_measured_runs: WeakKeyDictionary[Run, Measured | Unknown] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class StepModel:
    """A step of a run: what was measured, and what changes made of it.

    Attributes
    ----------
    measured
        The run; no change edits it.
    recorded_workers, workers
        `num_workers` of the run and after the changes.
    prefetch, persistent_workers
        `prefetch_factor` and `persistent_workers` after the changes; None where no change names them.
    cores
        Cores per rank.
    is_cached, is_balanced, is_replayed
        Whether samples come ready from memory, ranks have equal work, the trace of the device is replayed.
    logging_us
        Per rank, mean time per step that logging takes on the host of a CPU job.
    quiet
        Per rank of a device job, its steps without logging.
    cuts, programs
        Per rank of a device job, spans of host time that go, and its steps without them.
    parts
        By knob, the part of a step of which a change takes a share away.
    estimates
        Quantities that the run does not tell exactly, by name.
    errors
        Model to its largest error: 80 % half-width of log(actual / predicted).
    assumptions
        What must hold, in sentences.
    """

    measured: Measured
    recorded_workers: int
    workers: int
    prefetch: int | None = None
    persistent_workers: bool | None = None
    cores: float = math.inf
    is_cached: bool = False
    is_balanced: bool = False
    is_replayed: bool = False
    logging_us: Mapping[int, float] = field(default_factory=lambda: _NOTHING)
    quiet: Mapping[int, Program] = field(default_factory=lambda: _NOTHING)
    cuts: Mapping[int, Intervals] = field(default_factory=lambda: _NOTHING)
    programs: Mapping[int, Program] = field(default_factory=lambda: _NOTHING)
    parts: Mapping[str, Part] = field(default_factory=lambda: _NOTHING)
    estimates: Mapping[str, Estimate] = field(default_factory=lambda: _NOTHING)
    errors: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    assumptions: tuple[str, ...] = ()

    @classmethod
    def from_run(cls, run: Run, config: Mapping[str, Any] | None = None) -> StepModel | Unknown:
        """The unchanged model of a run, or why the run holds too little for one.

        What is measured is kept for as long as the run lives, so that further calls with the same run cost little.
        """
        config = run.config if config is None else config
        found = _measured_runs.get(run)
        if found is None:
            found = _measured_runs[run] = measured(run)
        if isinstance(found, Unknown):
            return found
        workers = _whole(config, "num_workers")
        if workers is None:
            workers = int(found.seen_workers is True)  # some; how many the trace does not tell
        capacity = run.machine.cpu_capacity
        ranks = max(run.world_size or 1, len(found.ranks))
        cores = capacity / ranks if capacity else math.inf
        threads = _whole(config, "torch_num_threads")
        pool = Estimate(1.0, 1.0, max(cores, 1.0)) if threads is None else Estimate.exactly(float(threads))
        share = max((rank.loading.share for rank in found.ranks if rank.loading), default=0.0)
        split = Estimate((share + 1.0) / 2.0, share, 1.0)
        estimates = {"cpu_share": split} | ({} if found.is_device_job else {"threads": pool})
        if run.machine.devices and not found.is_device_job:
            estimates["gain"] = _UNTRACED_DEVICE_GAIN
        return cls(found, workers, workers, cores=cores, estimates=MappingProxyType(estimates))

    @property
    def before_us(self) -> float:
        """Mean steady step as measured."""
        return float(self.measured.step_us.mean())

    @property
    def unchanged(self) -> StepModel:
        """The same without any change."""
        kept = {name: self.estimates[name] for name in ("cpu_share", "threads") if name in self.estimates}
        kept |= {part_share(knob): Estimate.exactly(0.0) for knob in self.parts}
        return StepModel(
            self.measured, self.recorded_workers, self.recorded_workers, cores=self.cores, parts=self.parts, estimates=kept
        )

    @property
    def is_crowded(self) -> bool:
        """Whether workers and training loop may want more cores than there are."""
        threads = self.estimates["threads"].high if "threads" in self.estimates else 1.0
        return self.workers + threads > self.cores

    def with_error(self, model: str, error: float, *assumptions: str) -> StepModel:
        """The same, resting on one more model."""
        errors = {**self.errors, model: max(error, self.errors.get(model, 0.0))}
        new = tuple(each for each in assumptions if each not in self.assumptions)
        return replace(self, errors=MappingProxyType(errors), assumptions=(*self.assumptions, *new))

    def with_estimates(self, **estimates: Estimate) -> StepModel:
        """The same with further quantities that are not known exactly."""
        return replace(self, estimates=MappingProxyType({**self.estimates, **estimates}))


def predict(
    run: Run,
    changes: Mapping[str, Any] | Sequence[Change],
    config: Mapping[str, Any] | None = None,
    *,
    metric: str = "step_us",
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
        `step_us`: mean duration of the steady steps.
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
    if metric != "step_us":
        return Unknown(f"no model of {metric}: step_us is the metric there is", "predict step_us")
    config = run.config if config is None else config
    wanted = wanted_changes(changes, config)
    if isinstance(wanted, Unknown):
        return wanted
    model = edited(run, wanted, config)
    if isinstance(model, Unknown):
        return model
    already = tuple(f"{change.knob} is {change.after} already" for change in wanted if change.before == change.after)
    changed = tuple(change for change in wanted if change.before != change.after)
    if not changed:
        now = model.before_us
        return Prediction(metric, now, now, now, now, "prior", (*already, "nothing changes"), "none", 0.0)
    return _predicted(model, changed, already, calibration or Calibration(), draws, seed)


def edited(run: Run, changes: Sequence[Change], config: Mapping[str, Any] | None = None) -> StepModel | Unknown:
    """The model of a run with all changes in, or which change cannot be made, and why.

    One `Unknown` makes the whole answer unknown.
    """
    model = StepModel.from_run(run, config)
    if isinstance(model, Unknown):
        return model
    known = transforms()
    for change in sorted((each for each in changes if each.before != each.after), key=lambda each: each.knob):
        found = known.get(change.knob)
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
    if model.is_replayed:
        problem = replay_problem(model)
        if problem is not None:  # an Unknown is falsy
            return problem
    if model.cuts:
        quiet = cut_programs(model, without_logging=True) if model.quiet else model.quiet
        model = replace(model, programs=cut_programs(model, without_logging=False), quiet=quiet)
    estimates = dict(model.estimates)
    if not model.is_crowded or model.workers == model.recorded_workers:
        estimates = {name: estimate for name, estimate in estimates.items() if name not in ("cpu_share", "threads")}
    elif "host_factor" in estimates:
        estimates["host_factor"] = Estimate.exactly(1.0)  # beyond the cores the clock rule alone slows the host
    return replace(model, estimates=MappingProxyType(estimates))


def _predicted(
    model: StepModel, changes: Sequence[Change], idle: tuple[str, ...], calibration: Calibration, draws: int, seed: int
) -> Prediction | Unknown:
    steps = len(model.measured.step_us)
    rows = range(steps)
    before = model.before_us
    unchanged = simulated_step_us(replace(model.unchanged, is_replayed=model.is_replayed), rows, {})
    self_error = unchanged / before - 1.0
    if abs(self_error) > LARGEST_LOADER_ERROR:
        reason = f"the model gives {unchanged / 1e3:.1f} ms for the unchanged step of {before / 1e3:.1f} ms ({self_error:+.0%})"
        return Unknown(reason, "a quieter run: time in the run queue is not modelled")
    after = simulated_step_us(model, rows, {})
    if not after > 0.0:
        return Unknown("the changes leave no time in the step", "a run in which the parts of a step are told apart")
    ahead = model.workers * (model.prefetch or DEFAULT_PREFETCH)
    drawn = [simulated_step_us(model, draw, {}) for draw in draw_rows(steps, draws, ahead=ahead, seed=seed).tolist()]
    errors = list(model.errors.values())
    if model.measured.is_traced and steps < FEW_STEPS:
        errors.append(max(_FEW_STEPS_ERROR - max(errors, default=0.0), 0.0))
    down, up = half_widths(model, rows, after)
    shared = (draws_half_width(drawn), *errors, self_error)
    down, up = spread(*shared, down), spread(*shared, up)
    name = " + ".join(f"{each} 1" for each in sorted(model.errors))
    knob = "+".join(sorted(change.knob for change in changes))
    found = calibration.interval(after, down, up, model=name, knob=knob)
    assumptions = (_rests_on(model), *idle, *model.assumptions)
    width, simulated = (down + up) / 2.0, None if found.after == after else after
    return Prediction("step_us", before, found.after, found.low, found.high, found.basis, assumptions, name, width, simulated)


def _rests_on(model: StepModel) -> str:
    kind = "a replay of the trace" if model.is_replayed else "the trace" if model.measured.is_traced else "the phases of steps"
    return f"made from {kind} over {len(model.measured.step_us)} steady steps"


def _whole(config: Mapping[str, Any], knob: str) -> int | None:
    value = value_of(config, knob) if has_knob(config, knob) else None
    return value if type(value) is int else None
