"""Edits of what the host does besides training: logging."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from perfnb.prediction import Change, Unknown
from perfnb.whatif.device_edits import DeviceEdit
from perfnb.whatif.loader_knobs import SMALLEST_LOADING_SHARE
from perfnb.whatif.rank_model import RankModel
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

LOGGING_ERROR: Final = 0.10  # a prior (whatif contract, section 7)


@transform("log_every_n_steps", model="host_work", error=LOGGING_ERROR, needs=("steps",))
def log_every_n_steps(model: StepModel, change: Change) -> StepModel | Unknown:
    """Logging at fewer steps: each of the recorded ones loses 1 - before / after of what logging takes."""
    if any(type(value) is not int or value < 1 for value in (change.before, change.after)):
        return Unknown(f"{change} does not count steps", "whole numbers from 1 on")
    steps = len(model.measured.step_us)
    if change.before > steps:
        reason = f"the run logs every {change.before} steps and holds {steps}, so what logging takes is not in it"
        return Unknown(reason, f"a run of more than {change.before} steady steps")
    share = 1.0 - change.before / change.after
    limited = model.recorded_workers > 0 and model.measured.loading_share >= SMALLEST_LOADING_SHARE
    quiet = Estimate(share, min(0.0, share), max(0.0, share)) if limited else Estimate.exactly(share)
    texts = ["nothing in training depends on the logged values"]
    if limited:
        texts.append("what is saved may be lost again waiting for the loader, whose times per batch the run does not hold")
    edited = _quiet_device(model) if model.measured.is_device_job else _quiet_host(model, change.before)
    if isinstance(edited, Unknown):
        return edited
    return edited.with_estimates(quiet=quiet).with_error("host_work", LOGGING_ERROR, *texts)


def _quiet_host(model: StepModel, every: int) -> StepModel:
    times = {rank.rank: _logging_us(rank, every) for rank in model.measured.ranks}
    text = "logging is what the step does outside data, forward, backward, optimizer and communication"
    return replace(model, logging_us=MappingProxyType(times)).with_error("host_work", 0.0, text)


def _quiet_device(model: StepModel) -> StepModel | Unknown:
    removed = {}
    for rank in model.measured.ranks:
        if not isinstance(rank.graph, Timeline):
            return Unknown("the run has no trace to replay", "a trace of host and device") if rank.graph is None else rank.graph
        if not len(rank.logging):
            reason = "the trace shows no read of a value and no Optimizer.step range, so what is logging is not known"
            return Unknown(reason, "a trace with host operators")
        removed[rank.rank] = rank.logging
    text = "logging is every read of a tensor's value, and what follows the optimizer in a step; later waits still wait"
    edit = DeviceEdit("log_every_n_steps", removed=MappingProxyType(removed), blend="quiet")
    return model.with_device_edit("log_every_n_steps", edit).with_error("trace_replay", 0.0, text)


def _logging_us(rank: RankModel, every: int) -> float:
    """Mean time of logging per step: all other work if every step logs, else what exceeds the usual step's."""
    usual = 0.0 if every == 1 else float(np.median(rank.other_us))
    return max(float(rank.other_us.mean()) - usual, 0.0)
