"""Edits of how numbers are computed: precision, layout of images, the optimizer's implementation.

A CPU job's phases grow or shrink by ratios that were measured on its machine; a device job's kernels by those of
`perfnb.whatif.kernel_factors`, which are not validated on a GPU.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Change, Unknown
from perfnb.record.machine_probe import PREFIX
from perfnb.whatif.device_edits import DeviceEdit
from perfnb.whatif.device_phases import OPTIMIZER, spans_named
from perfnb.whatif.kernel_factors import GPU, in_short_type, with_kernels, without_conversions
from perfnb.whatif.machine_rates import MODEL_ERROR, PROBE, rate
from perfnb.whatif.phase_work import COMPUTE, PhaseEdit, factor_of, phases_us
from perfnb.whatif.step_simulation import replay_problem
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

PRECISION_ERROR: Final = 0.20  # a prior (whatif contract, section 7)
LAYOUT_ERROR: Final = 0.25  # a prior (whatif contract, section 7)
OPTIMIZER_ERROR: Final = 0.15  # a prior (whatif contract, section 7)
_FULL: Final = ("fp32", "float32", "32", "32-true", None)
_LOOPS: Final = ("loop", "for_loop", "forloop", None)
_BESIDE_MODEL: Final = Estimate(1.0, 0.5, 1.25)
"""Factor of what forward and backward hold besides the model that was timed: the loss; a prior."""

_REST_IN_BF16: Final = Estimate(1.0, 0.5, 1.25)
"""Factor of what is neither product nor convolution: half the bytes at best, casts on both sides at worst; a prior."""

_PRODUCTS: Final = Estimate(0.75, 0.5, 1.0)
"""Share of forward and backward in products and convolutions where the layers were not timed: a prior, not validated."""

_TRACE: Final = "a trace with host operators of torch's own optimizer"


@transform("precision", model="precision", error=PRECISION_ERROR, needs=("steps",))
def precision(model: StepModel, change: Change) -> StepModel | Unknown:
    """Products and convolutions in 16 bits, at the ratio that was measured here; the rest takes half to 1.25 times as long."""
    if change.after == "fp16" and not _has_scaler(model):
        reason = "fp16 without a gradient scaler lets small gradients vanish, so such a training is not predicted"
        return Unknown(reason, "bf16; or gradient_scaler in the config")
    if change.before not in _FULL or change.after not in ("bf16", "fp16", "bfloat16", "float16"):
        return Unknown(f"{change.before!r} -> {change.after!r}: only fp32 to bf16 or fp16 is modelled", "a change from fp32")
    if model.measured.is_device_job:
        return _in_16_bits(model, change)
    if change.after not in ("bf16", "bfloat16"):
        return Unknown("a CPU computes fp16 in other ways than bf16, and no ratio is measured", "bf16")
    loss = "what the precision does to the loss is not predicted"
    whole = _timed_whole(model, change, "bf16")
    if whole is not None:
        return whole.with_error("precision", MODEL_ERROR, loss)
    work = _layer_work(model, "layers.bf16.ratio", "layers.fp32.us", "gemm.bfloat16.speedup")
    if isinstance(work, Unknown):
        return work
    factor = _mixed(*work[:2], _REST_IN_BF16)
    text = "what is neither product nor convolution takes between half (half the bytes) and 1.25 times (casts) as long: a prior"
    edited = model.with_phase_edit(change.knob, PhaseEdit(COMPUTE, factor_of(change.knob)), factor)
    return edited.with_error("precision", PRECISION_ERROR, work[2], text, loss)


@transform("memory_format", model="memory_format", error=LAYOUT_ERROR, needs=("steps",))
def memory_format(model: StepModel, change: Change) -> StepModel | Unknown:
    """Channels-last images: convolutions at the ratio that was measured here, all else as now."""
    if change.after != "channels_last":
        return Unknown(f"{change.after!r}: only channels_last is modelled", "a run with the other layout")
    if model.measured.is_device_job:
        return _channels_last_on_device(model, change)
    whole = _timed_whole(model, change, "channels_last")
    if whole is not None:
        return whole.with_error("memory_format", MODEL_ERROR, "model and batches both are channels_last")
    work = _layer_work(model, "layers.channels_last.ratio", "layers.convolutions.fp32.us", "convolution.channels_last.speedup")
    if isinstance(work, Unknown):
        return work
    factor = _mixed(*work[:2], Estimate.exactly(1.0))
    text = "model and batches both are channels_last, and no operator between them converts"
    edited = model.with_phase_edit(change.knob, PhaseEdit(COMPUTE, factor_of(change.knob)), factor)
    return edited.with_error("memory_format", LAYOUT_ERROR, work[2], text)


@transform("optimizer_implementation", model="optimizer", error=OPTIMIZER_ERROR, needs=("steps",))
def optimizer_implementation(model: StepModel, change: Change) -> StepModel | Unknown:
    """The optimizer's phase at the ratio that was measured here; unmeasured, between nothing and what it takes now."""
    if change.after not in ("fused", "foreach") or change.before not in (*_LOOPS, "foreach"):
        return Unknown(f"{change.before!r} -> {change.after!r}: loop and foreach to fused are modelled", "a change to fused")
    if model.measured.is_device_job:
        return _launched_at_once(model, change)
    span = phases_us(model, "optimizer")
    if isinstance(span, Unknown):
        return span
    factor = _update_ratio(model, change)
    if factor is None:
        factor = Estimate(0.5, 0.0, 1.0) if change.after == "fused" else None
        told = f"the update takes {span / 1e3:.3g} ms; how much of it stays was not measured, so between nothing and all of it"
    else:
        told = f"the update takes {factor.value:.2f} times as long ({factor.low:.2f} to {factor.high:.2f}), as measured here"
    if factor is None:
        return Unknown("how much faster foreach is on a CPU was not measured", PROBE)
    edited = model.with_phase_edit(change.knob, PhaseEdit(("optimizer",), factor_of(change.knob)), factor)
    return edited.with_error("optimizer", OPTIMIZER_ERROR, told)


def _in_16_bits(model: StepModel, change: Change) -> StepModel | Unknown:
    dtype = "bfloat16" if change.after in ("bf16", "bfloat16") else "float16"
    find = partial(in_short_type, dtype=dtype, with_rest=True)
    return with_kernels(model, change, find, "precision", PRECISION_ERROR)


def _channels_last_on_device(model: StepModel, change: Change) -> StepModel | Unknown:
    return with_kernels(model, change, without_conversions, "memory_format", LAYOUT_ERROR)


def _launched_at_once(model: StepModel, change: Change) -> StepModel | Unknown:
    """The host launches the update in no time; its kernels move as much as now, which is more than a fused one has to."""
    refused = replay_problem(model)
    if refused is not None:
        return refused
    spans = {rank.rank: spans_named(model.run, rank.rank, OPTIMIZER) for rank in model.measured.ranks}
    if not all(len(each) for each in spans.values()):
        return Unknown("the trace holds no Optimizer.step, so when the update was launched is not known", _TRACE)
    edit = DeviceEdit(str(change), squeezed=MappingProxyType(spans))
    texts = ("a fused update is launched in no time, and its kernels take as long as those of now", GPU)
    return model.with_device_edit(change.knob, edit).with_error("optimizer", OPTIMIZER_ERROR, *texts)


def _update_ratio(model: StepModel, change: Change) -> Estimate | None:
    """Measured time after over that before; None where it was not measured."""
    after = rate(model.machine, f"update.{change.after}.ratio", is_shadow=model.is_shadow)
    if isinstance(after, Unknown):
        return None
    if change.before in _LOOPS:
        return after
    before = rate(model.machine, "update.foreach.ratio", is_shadow=model.is_shadow)
    if isinstance(before, Unknown):
        return None
    return Estimate(after.value / before.value, after.low / before.high, after.high / before.low)


def _timed_whole(model: StepModel, change: Change, name: str) -> StepModel | None:
    """The model with forward and backward as they were timed both ways on a batch; None where they were not."""
    ratio, taken = (rate(model.machine, f"model.{each}", is_shadow=model.is_shadow) for each in (f"{name}.ratio", "fp32.us"))
    spent = phases_us(model, *COMPUTE)
    if isinstance(ratio, Unknown) or isinstance(taken, Unknown) or isinstance(spent, Unknown) or not spent:
        return None
    share = Estimate(*(min(_passes(model) * value / spent, 1.0) for value in (taken.value, taken.low, taken.high)))
    factor = _mixed(ratio, share, _BESIDE_MODEL)
    told = (
        f"forward and backward of the model take {ratio.value:.2f} times as long then ({ratio.low:.2f} to {ratio.high:.2f}), as "
        f"timed on one batch here; they are {share.value:.0%} of these phases"
    )
    edited = model.with_phase_edit(change.knob, PhaseEdit(COMPUTE, factor_of(change.knob)), factor)
    return edited.with_error(change.knob, 0.0, told)


def _passes(model: StepModel) -> int:
    """Forward passes of a step."""
    parts = model.config.get("gradient_accumulation_steps", 1)
    return parts if type(parts) is int and parts > 0 else 1


def _layer_work(model: StepModel, ratio: str, time_us: str, speedup: str) -> tuple[Estimate, Estimate, str] | Unknown:
    """Factor of the layers that change, their share of forward and backward, and what both rest on."""
    spent = phases_us(model, *COMPUTE)
    if isinstance(spent, Unknown):
        return spent
    times = _passes(model)
    own = rate(model.machine, ratio, is_shadow=model.is_shadow)
    layers = rate(model.machine, time_us, is_shadow=model.is_shadow)
    if isinstance(own, Estimate) and isinstance(layers, Estimate) and spent > 0.0:
        share = Estimate(*(min(times * value / spent, 1.0) for value in (layers.value, layers.low, layers.high)))
        times_as_long = f"{own.value:.2f} times as long then, as timed alone here"
        told = f"the layers take {share.value:.0%} of forward and backward, and {times_as_long}"
        return own, share, told
    general = rate(model.machine, speedup, is_shadow=model.is_shadow)
    if isinstance(general, Unknown):
        if isinstance(own, Unknown) and f"{PREFIX}{ratio}" in model.machine.constants:
            general = own  # measured, but not to be rested on
        return Unknown(f"how fast this machine computes so is not known: {general.reason}", general.needs)
    share = _PRODUCTS
    told = (
        f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}; a prior) of forward and backward change, by the ratio of one "
        f"shape that was timed here, {1.0 / general.value:.2f}"
    )
    return Estimate(1.0 / general.value, 1.0 / general.high, 1.0 / general.low), share, told


def _mixed(ratio: Estimate, share: Estimate, rest: Estimate) -> Estimate:
    """Factor of the whole of which a share changes by a ratio, and what is left by another."""

    def at(times: float, part: float, other: float) -> float:
        return max(part * times + (1.0 - part) * other, 1e-3)

    middle = at(ratio.value, share.value, rest.value)
    # independent quantities: their effects on the logarithm's ends add in quadrature, as those of the model's other estimates
    moved = [
        [at(end, share.value, rest.value) - middle for end in (ratio.low, ratio.high)],
        [at(ratio.value, end, rest.value) - middle for end in (share.low, share.high)],
        [at(ratio.value, share.value, end) - middle for end in (rest.low, rest.high)],
    ]
    down = sum(min(*each, 0.0) ** 2 for each in moved) ** 0.5
    up = sum(max(*each, 0.0) ** 2 for each in moved) ** 0.5
    return Estimate(middle, max(middle - down, 1e-3), middle + up)


def _has_scaler(model: StepModel) -> bool:
    return has_knob(model.config, "gradient_scaler") and bool(value_of(model.config, "gradient_scaler"))
