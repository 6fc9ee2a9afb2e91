"""Edits that take a part out of the step: fewer threads, frozen garbage, no more compiling, rarer or asynchronous saving.

A CPU job loses the part. Of a device job the trace is replayed without it, where the trace tells when it was; else the device
may hide any share of it, and at most the time goes in which the device idled: a range. Not validated on a GPU.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.device_edits import DeviceEdit
from perfnb.whatif.known_parts import Part, known_part, part_share
from perfnb.whatif.loader_knobs import SMALLEST_LOADING_SHARE
from perfnb.whatif.segments import Program
from perfnb.whatif.thread_scaling import scaled_threads, timed_threads
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

PART_ERROR: Final = 0.15  # a prior (whatif contract, section 7)

_VERIFY: Final = "a run with the change, compared by verify"


@transform("torch_num_threads", model="part", error=PART_ERROR, needs=("phases",))
def torch_num_threads(model: StepModel, change: Change) -> StepModel | Unknown:
    """Down to one thread per core, operators no longer wait for cores or for one another; below that they scale as measured."""
    now, after = change.before, change.after
    if any(type(value) is not int or value < 1 for value in (now, after)):
        return Unknown(f"{now!r} -> {after!r} does not count threads", "whole numbers from 1 on")
    if model.cores == float("inf"):
        return Unknown("the run does not say how many cores there are", "a run of perfnb.record")
    timed = timed_threads(model, change)
    if timed is not None:
        return timed
    fair = max(1, int(model.cores))
    if now <= fair and after <= fair:
        return scaled_threads(model, change)
    if now <= fair or after != fair:
        reason = (
            f"how operators scale with threads is known only from more than {fair} per rank, as many as cores, down to {fair}"
        )
        return Unknown(reason, _VERIFY)
    part = _part(model, "crowded_threads")
    if isinstance(part, Unknown):
        return part
    edited = _without(model, change.knob, part, Estimate.exactly(1.0), "with a core per thread, operators wait for none")
    return edited.with_estimates(threads=Estimate.exactly(float(after)))


@transform("gc_freeze", model="part", error=PART_ERROR, needs=("steps",))
def gc_freeze(model: StepModel, change: Change) -> StepModel | Unknown:
    """No pauses for Python's garbage collector, which then has next to nothing to go through."""
    if change.after is not True:
        return Unknown("how long collecting would take is not known", "a run with gc_freeze=False")
    part = _part(model, "garbage")
    if isinstance(part, Unknown):
        return part
    return _without(model, change.knob, part, Estimate.exactly(1.0), "objects made later are few: collecting them takes no time")


@transform("compile_dynamic", model="part", error=PART_ERROR, needs=("steps",))
def compile_dynamic(model: StepModel, change: Change) -> StepModel | Unknown:
    """No compiling once the training is warm."""
    if change.after is not True:
        return Unknown("how often it would compile is not known", "a run with the setting")
    part = _part(model, "compiling")
    if isinstance(part, Unknown):
        return part
    texts = ("new shapes are the only reason to compile again", "code for dynamic shapes is as fast as that for fixed ones")
    return _without(model, change.knob, part, Estimate.exactly(1.0), *texts)


@transform("checkpoint_every_n_steps", model="part", error=PART_ERROR, needs=("phases",))
def checkpoint_every_n_steps(model: StepModel, change: Change) -> StepModel | Unknown:
    """Saving at other steps: each step loses 1 - before / after of what saving takes."""
    if any(type(value) is not int or value < 1 for value in (change.before, change.after)):
        return Unknown(f"{change.before!r} -> {change.after!r} does not count steps", "whole numbers from 1 on")
    steps = len(model.measured.step_us)
    if change.before > steps:
        reason = f"the run saves every {change.before} steps and holds {steps}, so what saving takes is not in it"
        return Unknown(reason, f"a run of more than {change.before} steady steps")
    part = _part(model, "saving")
    if isinstance(part, Unknown):
        return part
    share = Estimate.exactly(1.0 - change.before / change.after)
    return _without(model, change.knob, part, share, "each save takes as long as now")


@transform("async_checkpoint", model="part", error=PART_ERROR, needs=("phases",))
def async_checkpoint(model: StepModel, change: Change) -> StepModel | Unknown:
    """Writing in the background: waiting for the disk goes; the rest holds the copy to the host, whose length is not known."""
    if change.after is not True:
        return Unknown("how long the training would wait for the disk is not known", "a run with async_checkpoint=False")
    part = _part(model, "saving")
    if isinstance(part, Unknown):
        return part
    waiting = sum(float(times.sum()) for times in part.blocked_us.values())
    computing = sum(float(times.sum()) for times in part.cpu_us.values())
    sure = waiting / (waiting + computing) if waiting + computing else 0.0
    share = Estimate((1.0 + sure) / 2.0, sure, 1.0)
    texts = (
        f"waiting for the disk, {sure:.0%} of saving, goes; of the rest between nothing and all stays as the copy",
        "writing in the background takes no core that the training wants, and ends before the next save",
    )
    return _without(model, change.knob, part, share, *texts)


def _part(model: StepModel, name: str) -> Part | Unknown:
    return known_part(model.run, name, model.measured.numbers)


def _without(model: StepModel, knob: str, part: Part, share: Estimate, *texts: str) -> StepModel:
    """The step without a share of a part; a loader or a device that limits the step may take back any of what is saved."""
    if model.measured.is_device_job and part.spans and all(isinstance(rank.program, Program) for rank in model.measured.ranks):
        edited = model.with_device_edit(knob, DeviceEdit(knob, removed=part.spans))
        what = "the trace is replayed without these pauses of the host; not validated on a GPU"
        return edited.with_error("part", PART_ERROR, what, *texts)
    ends = (share.low, share.high)
    told = [f"{part.total_us / 1e3:.3g} ms per step are the part that changes", *texts]
    if model.measured.is_device_job:
        share = Estimate(share.value / 2.0, min(0.0, *ends), max(0.0, *ends))
        told.append("a device job: any of it may be hidden behind the device's work; not validated on a GPU")
    elif model.recorded_workers > 0 and model.measured.loading_share >= SMALLEST_LOADING_SHARE:
        share = Estimate(share.value, min(0.0, *ends), max(0.0, *ends))
        told.append("what is saved may be lost again waiting for the loader, whose times per batch the run does not hold")
    parts = MappingProxyType({**model.parts, knob: part})
    edited = replace(model, parts=parts).with_estimates(**{part_share(knob): share})
    return edited.with_error("part", PART_ERROR, *told)
