"""Edits of the loader's workers: how many, how far ahead they load, in which order they deliver, whether they stay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.loader_epochs import starts_per_step
from perfnb.whatif.loader_probed import DISK_WAIT_SHARE, NEEDS_PROBE
from perfnb.whatif.loader_settings import DEFAULT_PREFETCH
from perfnb.whatif.loader_sources import LOADER_ERROR, with_batches, worker_texts
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

HOST_FACTOR: Final = Estimate(1.08, 1.00, 1.16)  # a prior: leave-one-out on 5 V100 pairs (whatif contract, section 5.3)
SMALLEST_LOADING_SHARE: Final = 0.01  # whatif contract, section 4.4
MOST_WORKERS: Final = 128  # a choice: the simulation of one setting stays under two seconds


@transform("num_workers", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def num_workers(model: StepModel, change: Change) -> StepModel | Unknown:
    """Loader processes beside the training loop; batches cost them what they cost the loop, or what a probe found."""
    if type(change.after) is not int or change.after < 0:
        return Unknown(f"{change.after!r} is no number of workers", "a whole number from 0 on")
    if change.after > MOST_WORKERS:
        return Unknown(f"{change.after} workers are more than the {MOST_WORKERS} that are simulated", "fewer workers")
    loaded = with_batches(model)
    if isinstance(loaded, Unknown):
        no_limit = _no_limit(model) if change.after > model.recorded_workers > 0 else ""
        return model.with_error("loader_queue", 0.0, no_limit) if no_limit else loaded
    disk = _disk_bound(loaded, change.after)
    if disk is not None:
        return disk
    edited = replace(loaded, workers=change.after, is_replayed=loaded.is_replayed or loaded.measured.is_device_job)
    if model.measured.is_device_job and not model.recorded_workers:
        edited = edited.with_estimates(host_factor=HOST_FACTOR)
        edited = edited.with_error("trace_replay", 0.0, _host_factor_text())
    return edited.with_error("loader_queue", LOADER_ERROR, *worker_texts(edited))


@transform("prefetch_factor", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def prefetch_factor(model: StepModel, change: Change) -> StepModel | Unknown:
    """Batches that each worker makes ahead."""
    if change.after is not None and (type(change.after) is not int or change.after < 1):
        return Unknown(f"{change.after!r} is no prefetch factor", "a whole number from 1 on")
    edited = replace(model, prefetch=change.after, loader=replace(model.loader, prefetch=change.after))
    if not model.recorded_workers:
        return edited.with_error("loader_queue", LOADER_ERROR)
    loaded = with_batches(edited)
    if isinstance(loaded, Unknown):
        more = (change.after or DEFAULT_PREFETCH) > (change.before or DEFAULT_PREFETCH)
        no_limit = _no_limit(model) if more else ""
        return model.with_error("loader_queue", 0.0, no_limit) if no_limit else loaded
    unspread = _only_a_mean(loaded)
    return loaded.with_error("loader_queue", LOADER_ERROR, *worker_texts(loaded)) if unspread is None else unspread


@transform("in_order", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def in_order(model: StepModel, change: Change) -> StepModel | Unknown:
    """Whether a batch that is ready waits for slower ones before it."""
    if type(change.after) is not bool:
        return Unknown(f"{change.after!r} is neither True nor False", "in_order: True or False")
    text = "" if change.after else "the order of batches may differ from run to run, and slow samples come later"
    if not model.recorded_workers:
        edited = replace(model, loader=replace(model.loader, in_order=change.after))
        return edited.with_error("loader_queue", LOADER_ERROR, *filter(None, [text]))
    loaded = with_batches(model)
    if isinstance(loaded, Unknown):
        no_limit = "" if change.after else _no_limit(model)
        return model.with_error("loader_queue", 0.0, no_limit) if no_limit else loaded
    unspread = _only_a_mean(loaded)
    if unspread is not None:
        return unspread
    edited = replace(loaded, loader=replace(loaded.loader, in_order=change.after))
    return edited.with_error("loader_queue", LOADER_ERROR, *worker_texts(edited), *filter(None, [text]))


@transform("persistent_workers", model="loader_queue", error=LOADER_ERROR, needs=("steps",))
def persistent_workers(model: StepModel, change: Change) -> StepModel | Unknown:
    """Workers that outlive an epoch: what starting them takes, at every start of an epoch among the steady steps."""
    edited = replace(model, persistent_workers=bool(change.after))
    if not model.recorded_workers:
        text = "of the steady steps only those that begin an epoch tell of it; the run does not say which those are"
        return edited.with_error("loader_queue", LOADER_ERROR, *([] if starts_per_step(model) else [text]))
    epochs = model.run.steps["epoch"].dropna().nunique()
    if epochs == 1:
        return Unknown("the run has one epoch, so its workers start once", "a run over three or more epochs")
    if not starts_per_step(model):
        reason = "what it saves is the start of the workers at each epoch, and the steady steps hold no such start"
        return Unknown(reason, "a run over three or more epochs")
    loaded = with_batches(edited)
    if isinstance(loaded, Unknown):
        return loaded
    if "fork_us" not in loaded.loader.costs:
        return Unknown("the probe could start no worker, so what starting them takes is not known", NEEDS_PROBE)
    return loaded.with_error("loader_queue", LOADER_ERROR, *worker_texts(loaded))


def _no_limit(model: StepModel) -> str:
    """A sentence where the loop waits for its loader less than a hundredth of the step; else empty."""
    share = model.measured.loading_share
    return f"the loader does not limit the step: it waits for {share:.1%} of it" if share < SMALLEST_LOADING_SHARE else ""


def _only_a_mean(model: StepModel) -> Unknown | None:
    probe = model.loader.probe
    if probe is not None and len(probe.times) < 2:  # noqa: PLR2004 - one batch has no spread
        return Unknown("the probe timed a single batch: how batches differ decides this, and that is not known", NEEDS_PROBE)
    return None


def _disk_bound(model: StepModel, workers: int) -> Unknown | None:
    """Where samples wait for storage: how several readers at once are served does not follow from one."""
    probe = model.loader.probe
    if probe is None or workers <= max(model.recorded_workers, 1):
        return None
    total, waiting = float(probe.times.sum()), float(probe.times[:, 0].sum())
    read, size = probe.constants.get("storage_bytes", 0.0), probe.constants.get("batch_bytes", 0.0)
    if read <= size / 2 or not size or waiting <= DISK_WAIT_SHARE * total:
        return None
    reason = (
        f"samples wait for storage for {waiting / total:.0%} of their time ({read / 2**20:.1f} MiB a batch): how it serves "
        f"{workers} readers at once does not follow from one"
    )
    return Unknown(reason, f"a run with {workers} workers, or a probe of a copy on a faster disk or in memory")


def _host_factor_text() -> str:
    factor = HOST_FACTOR
    return f"beside workers the host's own work takes {factor.value:g} times as long ({factor.low:g} to {factor.high:g}; a prior)"
