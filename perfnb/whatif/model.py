"""The model of a step that changes edit: what was measured, and what each change makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakKeyDictionary

from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Unknown
from perfnb.run import Machine, Run
from perfnb.whatif.collective_traffic import Traffic
from perfnb.whatif.device_edits import END, DeviceEdit
from perfnb.whatif.known_parts import Part, part_share
from perfnb.whatif.loader_settings import LoaderSettings, recorded_loader
from perfnb.whatif.phase_work import PhaseEdit
from perfnb.whatif.rank_model import Measured, measured
from perfnb.whatif.uncertainty import Estimate

_UNTRACED_DEVICE_GAIN: Final = Estimate(0.7, 0.5, 1.0)  # whatif contract, section 1: a prior
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})

_measured_runs: WeakKeyDictionary[Run, Measured | Unknown] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
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
    loader
        How batches are made and handed over, in the run and after the changes.
    cores
        Cores per rank.
    is_cached, is_balanced, is_replayed
        Whether samples come ready from memory, ranks have equal work, the trace of the device is replayed.
    logging_us
        Per rank, mean time per step that logging takes on the host of a CPU job.
    parts
        By knob, the part of a step of which a change takes a share away.
    phase_edits
        By knob, phases that take longer or shorter.
    device_edits
        By knob, device ops that take longer or shorter, or are gone.
    loading, samples
        By knob, how many times as long loading for a step takes, and how many times as many samples a step has.
    repeats
        By knob, how many times as often a step runs forward and backward; what happens once per update stays.
    config
        The training's config.
    traffic
        What the ranks exchange, now and after the changes; None where no change names it.
    estimates
        Quantities that the run does not tell exactly, by name.
    errors
        Model to its largest error: 80 % half-width of log(actual / predicted).
    assumptions
        What must hold, in sentences.
    is_shadow
        Whether refusals of the models of runs (whatif contract, section 3) are skipped; benchmarks only.
    """

    measured: Measured
    recorded_workers: int
    workers: int
    prefetch: int | None = None
    persistent_workers: bool | None = None
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    cores: float = math.inf
    is_cached: bool = False
    is_balanced: bool = False
    is_replayed: bool = False
    logging_us: Mapping[int, float] = field(default_factory=lambda: _NOTHING)
    parts: Mapping[str, Part] = field(default_factory=lambda: _NOTHING)
    phase_edits: Mapping[str, PhaseEdit] = field(default_factory=lambda: _NOTHING)
    device_edits: Mapping[str, DeviceEdit] = field(default_factory=lambda: _NOTHING)
    loading: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    samples: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    repeats: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    config: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    traffic: Traffic | None = None
    estimates: Mapping[str, Estimate] = field(default_factory=lambda: _NOTHING)
    errors: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    assumptions: tuple[str, ...] = ()
    is_shadow: bool = False

    @classmethod
    def from_run(cls, run: Run, config: Mapping[str, Any] | None = None, *, is_shadow: bool = False) -> StepModel | Unknown:
        """The unchanged model of a run, or why the run holds too little for one.

        What is measured is kept for as long as the run lives, so that further calls with the same run cost little.
        """
        config = run.config if config is None else config
        found = _measured_runs.get(run)
        if found is None:
            found = _measured_runs[run] = measured(run)
        if isinstance(found, Unknown) and is_shadow:
            found = measured(run, is_shadow=True)
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
        return cls(
            found,
            workers,
            workers,
            loader=recorded_loader(config),
            cores=cores,
            config=config,
            estimates=MappingProxyType(estimates),
            is_shadow=is_shadow,
        )

    @property
    def before_us(self) -> float:
        """Mean steady step as measured."""
        return float(self.measured.step_us.mean())

    @property
    def unchanged(self) -> StepModel:
        """The same without any change."""
        kept = {name: self.estimates[name] for name in ("cpu_share", "threads") if name in self.estimates}
        kept |= {part_share(knob): Estimate.exactly(0.0) for knob in self.parts}
        now, loader = self.recorded_workers, self.loader.unchanged
        return StepModel(self.measured, now, now, loader=loader, cores=self.cores, parts=self.parts, estimates=kept)

    @property
    def run(self) -> Run:
        """The run that was measured.

        Raises
        ------
        ReferenceError
            If it does not live any more.
        """
        found = self.measured.source()
        if found is None:
            message = "a model outlived the run that it was made from"
            raise ReferenceError(message)
        return found

    @property
    def machine(self) -> Machine:
        """What the run ran on."""
        return self.run.machine

    @property
    def samples_ratio(self) -> float:
        """How many times as many samples a step has after the changes; 1 where they leave them alone."""
        ratio = math.prod(self.samples.values())
        return 1.0 if math.isclose(ratio, 1.0, rel_tol=1e-9) else ratio

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

    def with_phase_edit(self, knob: str, edit: PhaseEdit, value: Estimate) -> StepModel:
        """The same with phases that take longer or shorter by a quantity that is not known exactly."""
        edits = MappingProxyType({**self.phase_edits, knob: edit})
        return replace(self, phase_edits=edits).with_estimates(**{edit.estimate: value})

    def with_device_edit(self, knob: str, edit: DeviceEdit) -> StepModel:
        """The same with a changed trace, which is replayed then."""
        edits = MappingProxyType({**self.device_edits, knob: edit})
        edited = replace(self, device_edits=edits, is_replayed=True).with_error("trace_replay", 0.0)
        return edited if edit.end is None else edited.with_estimates(**{edit.end: END})

    def with_samples(self, knob: str, ratio: float, *, loading: bool = True) -> StepModel:
        """The same with so many times as many samples per step; where they are loaded, loading takes as many times as long."""
        edited = replace(self, samples=MappingProxyType({**self.samples, knob: ratio}))
        return replace(edited, loading=MappingProxyType({**self.loading, knob: ratio})) if loading else edited


def _whole(config: Mapping[str, Any], knob: str) -> int | None:
    value = value_of(config, knob) if has_knob(config, knob) else None
    return value if type(value) is int else None
