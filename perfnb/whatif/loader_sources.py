"""Where a changed loader's batches come from: the run's own times, a probe's, and what must hold before either is trusted."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from perfnb.prediction import Unknown
from perfnb.whatif.loader_epochs import START, START_FACTOR, starts_per_step
from perfnb.whatif.loader_foreign import FOREIGN_ERROR, foreign_threads
from perfnb.whatif.loader_probed import LARGEST_LIKE, LEAST_LIKE, NEEDS_PROBE, ProbedLoader, has_probe, probed_loader, unlike
from perfnb.whatif.loader_simulation import AFTER_WAIT
from perfnb.whatif.step_simulation import replay_problem
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

LOADER_ERROR: Final = 0.10  # a prior (whatif contract, section 7)
HAND_OVER_US: Final = 2000.0
"""Taking a batch from a worker, which only a probe of the loader tells: nothing, or in the high end of the interval so much, the
least on one virtual machine (whatif contract, section 4.3)."""

QUICK_US: Final = 5000.0
"""Where making a batch takes less, the high end is what making it takes: it may be copying alone, as handing over is."""

_ALL_RANKS: Final = "traces of all ranks"
_FEW_NAMED: Final = 5


def with_batches(model: StepModel) -> StepModel | Unknown:
    """The model with all that simulating its loader takes: single batches, costs of a worker, load by others; or what is lacking.

    Every transform of the loader begins with it, and doing it twice changes nothing.
    """
    refused = _refusal(model)
    if refused is not None:
        return refused
    foreign = foreign_threads(model.run, len(model.measured.ranks))
    if isinstance(foreign, Unknown):
        if not model.is_shadow:
            return foreign
        foreign = 0.0
    probe = probed_loader(model.run, is_shadow=model.is_shadow)
    if isinstance(probe, Unknown):
        if model.recorded_workers:
            return _beyond_recorded(model, probe)
        if has_probe(model.run):
            return probe
        model = model.with_estimates(get_us=_hand_over(model))
    else:
        fitted = _with_probe(model, probe)
        if isinstance(fitted, Unknown):
            return fitted
        model = fitted
    starts = starts_per_step(model)
    if starts and "fork_us" in model.loader.costs:
        model = replace(model, loader=replace(model.loader, starts_per_step=starts)).with_estimates(**{START: START_FACTOR})
    if foreign:
        model = replace(model, loader=replace(model.loader, foreign=foreign))
        model = model.with_error("loader_queue", FOREIGN_ERROR, f"{foreign:.1f} threads of others run beside it all the time")
    return model


def worker_texts(model: StepModel) -> tuple[str, ...]:
    """What a prediction with workers assumes."""
    probed = model.loader.probe is not None and "get_us" in model.loader.probe.constants
    texts = [
        "batches take a worker as long as the probe found, and handing them over costs what it costs on this machine"
        if probed
        else "a batch takes a worker as long as it took the training loop; handing it over costs nothing, or in the high end "
        f"{model.estimates.get('get_us', _hand_over(model)).high / 1e3:.3g} ms"
    ]
    if not probed:
        texts.append("memory is not checked")
    if starts_per_step(model) and not model.loader.starts_per_step:
        texts.append("what starting the workers takes at each epoch is left out: only a probe of the dataset tells")
    if model.cores == float("inf"):
        texts.append("a core for each worker and for the loop: the run does not say how many there are")
    if len(model.measured.ranks) > 1:
        texts.append("collectives keep their recorded time")
    return tuple(texts)


def _hand_over(model: StepModel) -> Estimate:
    """What taking a batch from a worker costs where no probe tells."""
    made = [each.total_us for rank in model.measured.ranks for step in rank.batches for each in step if each.total_us > 0.0]
    mean = float(np.mean(made)) if made else 0.0
    return Estimate(0.0, 0.0, max(mean, HAND_OVER_US) if mean < QUICK_US else HAND_OVER_US)


def _beyond_recorded(model: StepModel, lacking: Unknown) -> Unknown:
    reason = f"the run loaded with {model.recorded_workers} workers, whose times per batch it does not hold, and {lacking.reason}"
    return Unknown(reason, f"{lacking.needs}; or a run with num_workers=0")


def _with_probe(model: StepModel, probe: ProbedLoader) -> StepModel | Unknown:
    if probe.constants.get("on_device"):
        reason = "the dataset gives tensors on the GPU: a worker process cannot hand those over"
        return Unknown(reason, "a dataset that gives tensors of the CPU")
    parts = _micro_batches(model)
    scale = {}
    for rank in model.measured.ranks:
        own = [each.total_us for step in rank.batches for each in step if each.total_us > 0.0]
        ratio = float(np.mean(own)) / parts / probe.batch_us if own and probe.batch_us else float("nan")
        if model.recorded_workers:
            ratio = 1.0
        else:
            strange = unlike(model.run, probe, ratio * probe.batch_us)
            if strange is not None and not model.is_shadow:
                return strange
            if not LEAST_LIKE <= ratio <= LARGEST_LIKE:
                apart = f"batches took {ratio:.2f} times as long in the run as in the probe: the interval is as much wider"
                model = model.with_error("loader_queue", math.hypot(LOADER_ERROR, math.log(ratio)), apart)
        scale[rank.rank] = ratio
    loader = replace(model.loader, probe=probe, scale=MappingProxyType(scale), micro_batches=parts)
    model = replace(model, loader=loader)
    known = {name: probe.estimate(name) for name in ("get_us", "put_us")}
    found = {name: estimate for name, estimate in known.items() if estimate is not None} or {"get_us": _hand_over(model)}
    cold = probe.estimate("after_wait_ratio")
    if cold is not None and cold.value > 1.0:
        found[AFTER_WAIT] = Estimate(cold.value, max(cold.low, 1.0), cold.high)
        told = f"work right after a wait for data takes {cold.value:.2f} times as long as without, as the probe found"
        model = model.with_error("loader_queue", 0.0, told)
    share = probe.cpu_share
    return model.with_estimates(cpu_share=Estimate.exactly(share), **found)


def _micro_batches(model: StepModel) -> int:
    """Batches of a step in a run whose phases sum them up; 1 where a trace shows each wait, or nothing tells."""
    if any(len(step) > 1 for rank in model.measured.ranks for step in rank.batches):
        return 1
    steps = model.run.steps
    found = steps.loc[steps["step"].isin(model.measured.numbers), "micro_batches"].dropna()
    return max(round(float(found.mean())), 1) if len(found) and not model.measured.is_traced else 1


def _refusal(model: StepModel) -> Unknown | None:
    found = model.measured
    if found.seen_workers and not model.recorded_workers:
        reason = "the config says num_workers 0, but the trace waits for worker processes"
        return Unknown(reason, "the config that this run was recorded with")
    problem = replay_problem(model) if found.is_device_job else None
    if problem is not None:
        return problem
    if found.missing_ranks:
        more = ", ..." if len(found.missing_ranks) > _FEW_NAMED else ""
        named = ", ".join(map(str, found.missing_ranks[:_FEW_NAMED])) + more
        return Unknown(f"the step ends with the slowest rank, and ranks {named} were not read", _ALL_RANKS)
    if not any(each.total_us for rank in found.ranks for step in rank.batches for each in step):
        return Unknown("the run shows no time in a DataLoader", f"a trace with DataLoader ranges, or {NEEDS_PROBE}")
    if model.run.config.get("dataset_is_iterable") and model.run.loader_samples.empty:
        reason = "the dataset is iterable: workers repeat one another's samples unless it hands each of them its own part"
        return Unknown(reason, "a probe that says so: perfnb.probe_dataset(loader, sharded=True).attach(run)")
    return None
