"""Edits of the loader: how many workers, how far ahead they load, whether they stay, whether samples come from memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.step_simulation import replay_problem
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

LOADER_ERROR: Final = 0.10  # a prior (whatif contract, section 7)
HOST_FACTOR: Final = Estimate(1.08, 1.00, 1.16)  # a prior: leave-one-out on 5 V100 pairs (whatif contract, section 5.3)
HAND_OVER_US: Final = Estimate(0.0, 0.0, 2000.0)
"""Taking a batch from a worker, which only a probe of the loader tells; 2 ms was the least on one virtual machine (whatif
contract, section 4.3), so the high end of the interval allows for it."""

MOST_WORKERS: Final = 128  # a choice: the simulation of one setting stays under two seconds
SMALLEST_LOADING_SHARE: Final = 0.01

_PROBE: Final = "a run with num_workers=0, or a probe of the loader: times of single batches"
_ALL_RANKS: Final = "traces of all ranks"


@transform("num_workers", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def num_workers(model: StepModel, change: Change) -> StepModel | Unknown:
    """Loader processes beside the training loop; batches cost them what they cost the loop."""
    if type(change.after) is not int or change.after < 0:
        return Unknown(f"{change.after!r} is no number of workers", "a whole number from 0 on")
    if change.after > MOST_WORKERS:
        return Unknown(f"{change.after} workers are more than the {MOST_WORKERS} that are simulated", "fewer workers")
    refused = _refusal(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    if model.recorded_workers:
        return _beyond_recorded(model, more=change.after > model.recorded_workers)
    edited = replace(model, workers=change.after, is_replayed=model.is_replayed or model.measured.is_device_job)
    if change.after:
        edited = edited.with_estimates(get_us=HAND_OVER_US)
    if model.measured.is_device_job:
        edited = edited.with_estimates(host_factor=HOST_FACTOR)
        edited = edited.with_error("trace_replay", 0.0, _host_factor_text())
    return edited.with_error("loader_queue", LOADER_ERROR, *_loader_texts(model))


@transform("prefetch_factor", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def prefetch_factor(model: StepModel, change: Change) -> StepModel | Unknown:
    """Batches that each worker makes ahead."""
    if change.after is not None and (type(change.after) is not int or change.after < 1):
        return Unknown(f"{change.after!r} is no prefetch factor", "a whole number from 1 on")
    if model.recorded_workers:
        return _beyond_recorded(model, more=(change.after or 2) > (change.before or 2))
    return replace(model, prefetch=change.after).with_error("loader_queue", LOADER_ERROR)


@transform("persistent_workers", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def persistent_workers(model: StepModel, change: Change) -> StepModel | Unknown:
    """Workers that outlive an epoch: the steady step, which holds no start of an epoch, stays as it is."""
    if model.recorded_workers:
        reason = "what it saves is the start of the workers at each epoch, and the steady steps hold no such start"
        return Unknown(reason, "a run over three or more epochs, or a probe of how long workers take to start")
    text = "starting the workers, at the first epoch or at each, is not part of a steady step"
    return replace(model, persistent_workers=bool(change.after)).with_error("loader_queue", LOADER_ERROR, text)


@transform("cache_samples", model="loader_queue", error=LOADER_ERROR, needs=("host_ops",))
def cache_samples(model: StepModel, change: Change) -> StepModel | Unknown:
    """Samples ready in memory: of a batch's time only collating remains."""
    if change.after != "memory":
        return Unknown(f"cached to {change.after!r}: what reading a sample costs there is not known", "reads timed at that place")
    if model.recorded_workers:
        return _beyond_recorded(model, more=True)
    refused = _refusal(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    collate = {}
    for rank in model.measured.ranks:
        if rank.loading is None or rank.loading.collate_us is None:
            reason = "no aten::stack or aten::cat is seen inside the loader, so what collating a batch costs is not known"
            return Unknown(reason, "a trace with host operators of a loader that collates tensors, or a timed collate")
        collate[f"collate_{rank.rank}"] = rank.loading.collate_us
    edited = replace(model, is_cached=True, is_replayed=model.is_replayed or model.measured.is_device_job)
    texts = ("every sample is in memory already, which the first epoch does not gain from", "memory is not checked")
    edited = edited.with_estimates(**collate).with_error("loader_queue", LOADER_ERROR, *texts)
    return edited.with_error("trace_replay", 0.0) if edited.is_replayed else edited


def _beyond_recorded(model: StepModel, *, more: bool) -> StepModel | Unknown:
    """The answer where workers loaded already: their batches' times are not in the run."""
    share = model.measured.loading_share
    if share < SMALLEST_LOADING_SHARE and more:
        return model.with_error("loader_queue", 0.0, f"the loader does not limit the step: it waits for {share:.1%} of it")
    reason = f"the run loaded with {model.recorded_workers} workers, whose times per batch it does not hold"
    return Unknown(reason, _PROBE)


def _refusal(model: StepModel) -> Unknown | None:
    found = model.measured
    if found.seen_workers and not model.recorded_workers:
        reason = "the config says num_workers 0, but the trace waits for worker processes"
        return Unknown(reason, "the config that this run was recorded with")
    problem = replay_problem(model) if found.is_device_job else None
    if problem is not None:
        return problem
    if found.missing_ranks:
        named = ", ".join(map(str, found.missing_ranks[:5])) + (", ..." if len(found.missing_ranks) > 5 else "")  # noqa: PLR2004
        return Unknown(f"the step ends with the slowest rank, and ranks {named} were not read", _ALL_RANKS)
    if not any(each.total_us for rank in found.ranks for step in rank.batches for each in step):
        return Unknown("the run shows no time in a DataLoader", "a trace with DataLoader ranges, or a probe of the loader")
    return None


def _loader_texts(model: StepModel) -> tuple[str, ...]:
    texts = [
        "a batch takes a worker as long as it took the training loop; handing it over costs nothing, or in the high end 2 ms",
        "memory is not checked",
    ]
    if model.cores == float("inf"):
        texts.append("a core for each worker and for the loop: the run does not say how many there are")
    if len(model.measured.ranks) > 1:
        texts.append("collectives keep their recorded time")
    return tuple(texts)


def _host_factor_text() -> str:
    factor = HOST_FACTOR
    return f"beside workers the host's own work takes {factor.value:g} times as long ({factor.low:g} to {factor.high:g}; a prior)"
