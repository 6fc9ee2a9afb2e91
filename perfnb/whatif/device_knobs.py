"""Edits of what a device computes and of how its host launches it. Nothing here was validated on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from perfnb.categories import matching
from perfnb.intervals import Intervals, clip, subtract, union
from perfnb.prediction import Change, Unknown
from perfnb.whatif.device_edits import TO_DEVICE, DeviceEdit
from perfnb.whatif.device_phases import spans_named
from perfnb.whatif.kernel_factors import (
    GPU,
    aligned_products,
    changed_kernels,
    fused_attention,
    in_short_type,
    lacks_tf32,
    with_kernels,
)
from perfnb.whatif.machine_rates import rate
from perfnb.whatif.step_simulation import replay_problem
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

PRODUCTS_ERROR: Final = 0.15  # priors (whatif contract, section 7)
ATTENTION_ERROR: Final = 0.25
COMPILE_ERROR: Final = 0.05
GRAPH_ERROR: Final = 0.10
CACHE_ERROR: Final = 0.10
COPY_ERROR: Final = 0.15
_GRAPH_GAP_US: Final = 1.5  # whatif contract, section 7: 1 to 2 us between ops of a graph
_SHAPES: Final = ("batch_size", "tokens", "padded_tokens")
_ALLOCATING: Final = r"^(?:cuda|hip)(?:Malloc|Free)(?:Async)?$"
_COMPILED: Final = "compiled"


@transform("matmul_precision", model="precision", error=PRODUCTS_ERROR, needs=("device_ops",))
def matmul_precision(model: StepModel, change: Change) -> StepModel | Unknown:
    """Products of float32 in TF32, at the ratio that was measured on the device."""
    if change.before != "highest" or change.after not in ("high", "medium"):
        return Unknown(f"{change.before!r} -> {change.after!r}: highest to high or medium is modelled", "a change from highest")
    return with_kernels(model, change, _in_tf32, "precision", PRODUCTS_ERROR)


def _in_tf32(model: StepModel) -> tuple[pd.Series, str] | Unknown:
    if lacks_tf32(model):
        return Unknown("the device is not known to have TF32, which NVIDIA's since Ampere have", "a trace that names its device")
    return in_short_type(model, "tfloat32", with_rest=False)


@transform("pad_to_multiple_of", model="alignment", error=PRODUCTS_ERROR, needs=("device_ops",))
def pad_to_multiple_of(model: StepModel, change: Change) -> StepModel | Unknown:
    """Misaligned products between their time of now and what the device reaches."""
    if type(change.after) is not int or change.after < 1 or change.after % 8:
        return Unknown(f"{change.after!r} is no multiple of 8, which 16-bit products want", "8, 16, ...")
    refused = replay_problem(model)
    if refused is not None:
        return refused
    found = aligned_products(model)
    if isinstance(found, Unknown):
        return found
    factors, least, most, told = found
    edit = changed_kernels(model, str(change), factors, least=least, most=most)
    return model.with_device_edit(change.knob, edit).with_error("alignment", PRODUCTS_ERROR, told, GPU)


@transform("attention", model="attention", error=ATTENTION_ERROR, needs=("device_ops",))
def attention(model: StepModel, change: Change) -> StepModel | Unknown:
    """Each unfused block of attention as one kernel at the rates that the device reaches."""
    if change.after not in ("sdpa", "flash_attention_2", "flash_attention_3"):
        return Unknown(f"{change.after!r}: eager to sdpa or flash attention is modelled", "sdpa")
    return with_kernels(model, change, fused_attention, "attention", ATTENTION_ERROR)


@transform("compile", model="compile", error=COMPILE_ERROR, needs=("device_ops",))
def compile_knob(model: StepModel, change: Change) -> StepModel | Unknown:
    """A range: between the step of now and one in which the device never waits for launches."""
    if change.after is False or change.after is None:
        return Unknown("how long the step takes without compiling is not known", "a run with compile=False")
    refused = replay_problem(model)
    if refused is not None:
        return refused
    edit = DeviceEdit(_COMPILED, squeezed=_launching(model), largest_gap_us=0.0, blend=_COMPILED)
    texts = (
        "a range: at best the device never waits for the host, at worst nothing changes; the middle is no better founded",
        "shorter kernels by fusing are not counted; the first steps compile",
        GPU,
    )
    edited = model.with_device_edit(change.knob, edit).with_estimates(**{_COMPILED: Estimate(0.5, 0.0, 1.0)})
    return edited.with_error("compile", COMPILE_ERROR, *texts)


@transform("cuda_graphs", model="cuda_graphs", error=GRAPH_ERROR, needs=("device_ops",))
def cuda_graphs(model: StepModel, change: Change) -> StepModel | Unknown:
    """One launch per step: the host takes no time between its waits for the loader, kernels follow one another closely."""
    if change.after is not True:
        return Unknown("how long launching one by one would take is not known", "a run with cuda_graphs=False")
    refused = replay_problem(model)
    if refused is not None:
        return refused
    for rank in model.measured.ranks:
        if isinstance(rank.graph, Timeline):
            waits = sorted({block.name for block in rank.graph.blocks if block.kind != "loader"})
            if waits:
                reason = f"the host waits for the device inside the step ({', '.join(waits[:3])}), which a graph cannot hold"
                return Unknown(reason, "log_every_n_steps, or a run without these waits")
    changing = [name for name in _SHAPES if model.run.training.groupby("rank")[name].nunique().gt(1).any()]
    if changing:
        return Unknown(f"{changing[0]} changes from step to step, a graph holds one shape", "steps of one shape")
    edit = DeviceEdit(str(change), squeezed=_launching(model), largest_gap_us=_GRAPH_GAP_US)
    texts = (f"ops of a graph follow one another within {_GRAPH_GAP_US:g} us; one launch costs nothing", GPU)
    return model.with_device_edit(change.knob, edit).with_error("cuda_graphs", GRAPH_ERROR, *texts)


@transform("empty_cache_every_n_steps", model="host_work", error=CACHE_ERROR, needs=("device_ops",))
def empty_cache_every_n_steps(model: StepModel, change: Change) -> StepModel | Unknown:
    """Fewer calls that give memory back to the device and ask for it again; later waits still wait."""
    now, after = change.before, change.after
    if type(now) is not int or now < 1 or type(after) not in (int, type(None)) or (after or 0) < 0:
        return Unknown(f"{now!r} -> {after!r} does not count steps; 0 means never", "whole numbers from 1 on, or 0 after")
    refused = replay_problem(model)
    if refused is not None:
        return refused
    if now > len(model.measured.step_us):
        reason = f"the cache is emptied every {now} steps and the run holds {len(model.measured.step_us)}"
        return Unknown(reason, f"a run of more than {now} steady steps")
    spans = {rank.rank: spans_named(model.run, rank.rank, _ALLOCATING) for rank in model.measured.ranks}
    if not any(len(each) for each in spans.values()):
        return Unknown("the trace shows no call that allocates or frees device memory", "a trace with CUDA runtime calls")
    share = 1.0 - now / after if after else 1.0
    if share < 0.0:
        return Unknown("emptying more often costs what this run does not show", "a run with the setting")
    edit = DeviceEdit(str(change), removed=MappingProxyType(spans), blend=None if share == 1.0 else "kept_cache")
    edited = model if share == 1.0 else model.with_estimates(kept_cache=Estimate.exactly(share))
    texts = ("every call in the steps that allocates or frees device memory comes of emptying the cache", GPU)
    return edited.with_device_edit(change.knob, edit).with_error("host_work", CACHE_ERROR, *texts)


@transform("non_blocking", model="copies", error=COPY_ERROR, needs=("device_ops",))
def non_blocking(model: StepModel, change: Change) -> StepModel | Unknown:
    """Copies out of pinned memory that no longer hold up the host; they take what a probe of the machine says."""
    if change.after is not True:
        return Unknown("how long the host would wait for each copy is not known", "a run with non_blocking=False")
    refused = replay_problem(model)
    if refused is not None:
        return refused
    ops = model.run.device_ops
    copies = ops[ops["kind"].eq("copy") & matching(ops["name"], TO_DEVICE.name)]
    if copies.empty:
        return Unknown("the trace shows no copy from the host to the device", "a trace of a training that loads batches")
    pace = rate(model.machine, "h2d.pinned.bytes_per_s", is_shadow=model.is_shadow)
    latency = rate(model.machine, "h2d.pinned.latency_us", is_shadow=model.is_shadow)
    factors = pd.Series(dtype=np.float64)
    told = "copies take as long as now, for those from pinned memory were not timed here"
    if isinstance(pace, Estimate) and isinstance(latency, Estimate) and copies["bytes"].notna().all():
        took = copies["duration_us"].where(copies["duration_us"] > 0.0)
        moved = copies["bytes"].astype("float64")
        factors = ((latency.value + 1e6 * moved / pace.value) / took).fillna(1.0)
        told = "each copy takes what its bytes take from pinned memory, as timed here"
    edit = replace(changed_kernels(model, str(change), factors), is_unblocked=True)
    return model.with_device_edit(change.knob, edit).with_error("copies", COPY_ERROR, told, GPU)


def _launching(model: StepModel) -> Mapping[int, Intervals]:
    """Host time of the steps outside of calls that wait, for the loader or for the device."""
    found = {}
    for rank in model.measured.ranks:
        if isinstance(rank.graph, Timeline):
            edges, blocks = rank.graph.edges_us, rank.graph.blocks
            waits = union(np.array([block.start_us for block in blocks]), np.array([block.end_us for block in blocks]))
            whole = union(edges[:1], edges[-1:])
            found[rank.rank] = subtract(clip(whole, float(edges[0]), float(edges[-1])), waits)
    return MappingProxyType(found)
