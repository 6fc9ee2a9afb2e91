"""Edits of where samples come from: another folder, memory; and of the thread that copies batches into pinned memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Change, Unknown
from perfnb.whatif.loader_probed import NEEDS_PROBE, ProbedLoader, probed_loader
from perfnb.whatif.loader_sources import LOADER_ERROR, with_batches, worker_texts
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

_Z_OF_80_PERCENT: Final = 1.2816
_NOTHING_FIRST: Final = "every sample is in memory already, which the first epoch does not gain from"


@transform("cache_samples", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def cache_samples(model: StepModel, change: Change) -> StepModel | Unknown:
    """Samples ready in memory: of a batch's time only collating remains, as a probe timed it or as the trace shows it."""
    if change.after != "memory":
        return Unknown(f"cached to {change.after!r}: what reading a sample costs there is not known", "reads timed at that place")
    loaded = with_batches(model)
    if isinstance(loaded, Unknown):
        return loaded
    probe = loaded.loader.probe
    collate = _collate_of_trace(loaded) if probe is None else _collate_of_probe(loaded, probe)
    if isinstance(collate, Unknown):
        return collate
    edited = replace(loaded, is_cached=True, is_replayed=loaded.is_replayed or loaded.measured.is_device_job)
    texts = [_NOTHING_FIRST]
    texts.append("memory is not checked" if probe is None else "workers that fill caches of their own need that memory each")
    edited = edited.with_estimates(**collate).with_error("loader_queue", LOADER_ERROR, *texts)
    return edited.with_error("trace_replay", 0.0) if edited.is_replayed else edited


@transform("data_root", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def data_root(model: StepModel, change: Change) -> StepModel | Unknown:
    """The same samples read from another folder, where a probe read them."""
    moved = probed_loader(model.run, f"data_root={change.after}", is_shadow=model.is_shadow)
    if isinstance(moved, Unknown):
        reason = moved.reason if not model.run.loader_samples.empty else "what reading a sample costs there is not known"
        return Unknown(
            reason, f"a probe of the dataset at that place: probe_dataset(loader_there).attach(run, data_root={change.after!r})"
        )
    loaded = with_batches(model) if not model.recorded_workers else model
    if isinstance(loaded, Unknown):
        return loaded
    edited = replace(
        loaded,
        loader=replace(loaded.loader, moved=moved),
        is_replayed=loaded.is_replayed or loaded.measured.is_device_job,
    )
    found = {name: estimate for name in ("get_us", "put_us") if (estimate := moved.estimate(name)) is not None}
    edited = edited.with_estimates(**found).with_error(
        "loader_queue", LOADER_ERROR, "the copy there is complete", *worker_texts(edited)
    )
    return edited.with_error("trace_replay", 0.0) if edited.is_replayed else edited


@transform("pin_memory", model="loader_queue", error=0.15, needs=("steps",))
def pin_memory(model: StepModel, change: Change) -> StepModel | Unknown:
    """A thread of the loader that copies batches into pinned memory; alone it makes no copy to the device asynchronous."""
    if type(change.after) is not bool:
        return Unknown(f"{change.after!r} is neither True nor False", "pin_memory: True or False")
    if not model.run.uses_device and not model.machine.devices:
        return Unknown("the run uses no GPU, so there is nothing to pin memory for", "a run on a GPU")
    asynchronous = has_knob(model.config, "non_blocking") and bool(value_of(model.config, "non_blocking"))
    if asynchronous or not change.after:
        reason = "copies to the device take another time and no longer hold up the host, or do so again"
        return Unknown(reason, "timed copies from pageable and from pinned memory on this machine")
    edited = replace(model, loader=replace(model.loader, is_pinned=True))
    text = "pinned memory alone: copies still hold up the host until non_blocking is set; not validated on a GPU"
    return edited.with_error("loader_queue", 0.15, text)


def _collate_of_trace(model: StepModel) -> dict[str, Estimate] | Unknown:
    collate = {}
    for rank in model.measured.ranks:
        if rank.loading is None or rank.loading.collate_us is None:
            reason = "no aten::stack or aten::cat is seen inside the loader, so what collating a batch costs is not known"
            return Unknown(reason, f"a trace with host operators of a loader that collates tensors, or {NEEDS_PROBE}")
        collate[f"collate_{rank.rank}"] = rank.loading.collate_us
    return collate


def _collate_of_probe(model: StepModel, probe: ProbedLoader) -> dict[str, Estimate] | Unknown:
    known = probe.constants
    if known.get("is_random"):
        reason = "a sample that is read twice differs: randomness inside it would be frozen by keeping it"
        return Unknown(reason, "a dataset whose random part comes after what is kept, probed without that part")
    size = known.get("set_bytes", 0.0)
    if size > known.get("memory_bytes", math.inf):
        reason = f"the samples of the whole set take {size / 2**30:.1f} GiB, and {known['memory_bytes'] / 2**30:.1f} GiB are free"
        return Unknown(reason, "more memory, or a smaller set")
    collating = probe.times[:, 2:].sum(axis=1)
    mean, half = float(collating.mean()), 0.0
    if len(collating) > 1:
        half = _Z_OF_80_PERCENT * float(np.std(collating, ddof=1)) / math.sqrt(len(collating))
    return {f"collate_{rank.rank}": Estimate(mean, max(mean - half, 0.0), mean + half) for rank in model.measured.ranks}
