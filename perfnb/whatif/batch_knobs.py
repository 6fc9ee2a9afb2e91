"""Edits of how many samples a step takes: the batch size, and micro-batches that are accumulated."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.batch_line import size_factor
from perfnb.whatif.collective_setting import exchanged_per_update
from perfnb.whatif.device_edits import factor_edit
from perfnb.whatif.device_phases import OPTIMIZER, launched_in
from perfnb.whatif.loader_knobs import SMALLEST_LOADING_SHARE
from perfnb.whatif.phase_work import COMPUTE, PhaseEdit, factor_of, phase_times, phases_us
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.device_edits import Bools
    from perfnb.whatif.model import StepModel

BATCH_ERROR: Final = 0.10  # a prior (whatif contract, section 7)
ACCUMULATION_ERROR: Final = 0.05  # a prior (whatif contract, section 7)
GPU: Final = "not validated on a GPU"


@transform("batch_size", model="batch_size", error=BATCH_ERROR, needs=("steps",))
def batch_size(model: StepModel, change: Change) -> StepModel | Unknown:
    """Samples of a micro-batch: forward and backward take a + b x size, loading grows with the size, an update costs the same.

    On a device job the host's own work stays, and the device's grows: the replay tells which of the two the step then ends with.
    """
    now, after = change.before, change.after
    if any(type(value) is not int or value < 1 for value in (now, after)):
        return Unknown(f"{now!r} -> {after!r} does not count samples", "whole numbers from 1 on")
    times = after / now
    refused = _loader_refused(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    found = size_factor(model, now, after)
    if isinstance(found, Unknown):
        return found
    texts = (found.told, "loading takes each sample as long as now, an update takes as long as now", "memory is not checked")
    edited = model.with_samples(change.knob, times).with_error("batch_size", BATCH_ERROR, *texts)
    return _grown(edited, change.knob, f"{change}", found.factor)


_ADDED: Final = Estimate(0.5, 0.0, 0.8)
"""Of an update, what adding the gradients of one more micro-batch takes: it reads two numbers per parameter and writes one, where
SGD with momentum reads three and writes two (3 / 5), Adam four and three (3 / 7); nothing where caches hold them. A prior."""

_ADDING_TEXT: Final = "adding gradients of one more micro-batch takes half of an update (none to 0.8): a prior"


@transform("gradient_accumulation_steps", model="accumulation", error=ACCUMULATION_ERROR, needs=("steps",))
def gradient_accumulation_steps(model: StepModel, change: Change) -> StepModel | Unknown:
    """Micro-batches per update: forward, backward and loading as often, the optimizer once."""
    now, after = change.before, change.after
    if any(type(value) is not int or value < 1 for value in (now, after)):
        return Unknown(f"{now!r} -> {after!r} does not count micro-batches", "whole numbers from 1 on")
    exchanged = exchanged_per_update(model, after)
    if isinstance(exchanged, Unknown):
        return exchanged
    refused = _loader_refused(model)
    if refused is not None:
        return refused
    times = after / now
    text = "one micro-batch takes as long as another; the optimizer, and what is in no phase, come once per update"
    edited = exchanged.with_samples(change.knob, times).with_error("accumulation", ACCUMULATION_ERROR, text)
    if not model.measured.is_device_job:
        missing = phases_us(model, *COMPUTE, "optimizer")
        if isinstance(missing, Unknown):
            return missing
        # beside the update, which is as long: neither grows with the batch
        adding = PhaseEdit(("optimizer",), factor_of("adding gradients"))
        edited = edited.with_phase_edit("adding gradients", adding, _adding(now, after))
        edited = edited.with_error("accumulation", 0.0, _ADDING_TEXT)
        return _grown(edited, change.knob, "", Estimate.exactly(times))
    for rank in model.measured.ranks:
        once = launched_in(model, rank, OPTIMIZER)
        if isinstance(once, Unknown):
            return once
    repeats = MappingProxyType({**model.repeats, change.knob: times})
    # the replay repeats whole steps with their loading, so that loading must not grow a second time
    loading = MappingProxyType({knob: each for knob, each in edited.loading.items() if knob != change.knob})
    edited = replace(edited, repeats=repeats, loading=loading, is_replayed=True)
    return edited.with_error("trace_replay", 0.0, GPU)


def _adding(now: int, after: int) -> Estimate:
    """What an update and adding the gradients of each further micro-batch take, over what both take now."""
    factors = [(1.0 + (after - 1) * share) / (1.0 + (now - 1) * share) for share in (_ADDED.value, _ADDED.low, _ADDED.high)]
    return Estimate(factors[0], min(factors), max(factors))


def _grown(model: StepModel, knob: str, key: str, factor: Estimate) -> StepModel | Unknown:
    """Forward and backward, and copies to the device, at so many times their length."""
    if not model.measured.is_device_job:
        phases = tuple(sorted({*COMPUTE, "transfer"} & phase_times(model.run, model.measured.numbers).names()))
        return model.with_phase_edit(knob, PhaseEdit(phases, factor_of(knob)), factor)
    chosen: dict[int, Bools] = {}
    for rank in model.measured.ranks:
        once = launched_in(model, rank, OPTIMIZER)
        if isinstance(once, Unknown):
            return once
        chosen[rank.rank] = ~once & rank.graph.ops["kind"].ne("communication").to_numpy()  # type: ignore[union-attr]
    return model.with_device_edit(knob, factor_edit(key, chosen, factor)).with_error("trace_replay", 0.0, GPU)


def _loader_refused(model: StepModel) -> Unknown | None:
    """Why loading more or fewer samples cannot be told: workers whose batches' times are not known limit the step."""
    if model.recorded_workers == 0 or model.measured.loading_share < SMALLEST_LOADING_SHARE:
        return None
    reason = (
        f"the step waits {model.measured.loading_share:.1%} of its time for {model.recorded_workers} workers, whose times per "
        "batch the run does not hold, so what more or fewer samples cost them is not known"
    )
    return Unknown(reason, "a run with num_workers=0, or a probe of the loader: times of single batches")
