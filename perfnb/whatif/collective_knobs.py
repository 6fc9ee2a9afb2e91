"""Edits of how gradients are exchanged: in which micro-batches, in which buckets, in how many bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from perfnb.prediction import Change, Unknown
from perfnb.whatif.collective_exchange import DTYPES
from perfnb.whatif.collective_setting import VERIFY, not_data_parallel, stated, with_exchange
from perfnb.whatif.phase_work import PhaseEdit, factor_of, phases_us
from perfnb.whatif.transform import transform
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

SYNC_ERROR: Final = 0.05  # priors (whatif contract, section 7)
EXCHANGE_ERROR: Final = 0.10
BACKEND_ERROR: Final = 0.15
SHARDING_ERROR: Final = 0.25

_STAGES: Final = (0, 1, 2, 3)
_OVERLAP: Final = "exchanging hides behind backward as much as it does now, and the link is as fast as in the recorded calls"


@transform("sync_every_micro_batch", model="collective", error=SYNC_ERROR, needs=("steps",))
def sync_every_micro_batch(model: StepModel, change: Change) -> StepModel | Unknown:
    """Gradients exchanged once per update, or after each micro-batch: what exchanging costs comes as often."""
    if not isinstance(change.before, bool) or not isinstance(change.after, bool):
        return Unknown(
            f"{change.before!r} -> {change.after!r}: gradients are exchanged each time, or they are not", "True or False"
        )
    refused = not_data_parallel(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    return with_exchange(model, SYNC_ERROR, ["each exchange costs as much"], syncs_each=change.after)


@transform("bucket_cap_mb", model="collective", error=EXCHANGE_ERROR, needs=("host_ops", "collectives"))
def bucket_cap_mb(model: StepModel, change: Change) -> StepModel | Unknown:
    """Other buckets: cut by torch's rules, each exchanged when its gradients are there and the one before has ended."""
    after = change.after
    if isinstance(after, Sequence) and not isinstance(after, str):
        after = tuple(after)
    sizes = after if isinstance(after, tuple) else () if after is None else (after,)
    if not all(isinstance(size, (int, float)) and not isinstance(size, bool) and size > 0 for size in sizes) or after == ():
        return Unknown(f"{change.after!r} is no limit of buckets", "MiB above 0, a list of them, or None for DDP's default")
    refused = not_data_parallel(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    return with_exchange(model, EXCHANGE_ERROR, [_OVERLAP], bucket_cap_mb=after)


@transform("find_unused_parameters", model="collective", error=EXCHANGE_ERROR, needs=("host_ops", "collectives"))
def find_unused_parameters(model: StepModel, change: Change) -> StepModel | Unknown:
    """No search for unused parameters, no exchange of what it found, and buckets in the order in which gradients arrive."""
    if not isinstance(change.after, bool):
        return Unknown(f"{change.after!r}: unused parameters are searched for, or they are not", "True or False")
    texts = [_OVERLAP, "no parameter is unused", "parameters are defined in the order in which forward uses them"]
    refused = not_data_parallel(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    return with_exchange(model, EXCHANGE_ERROR, texts, find_unused=change.after)


@transform("gradient_compression", model="collective", error=EXCHANGE_ERROR, needs=("host_ops", "collectives"))
def gradient_compression(model: StepModel, change: Change) -> StepModel | Unknown:
    """Gradients exchanged in 16 bits: half the bytes, as fast as a probe found such calls, and casting there and back."""
    for value in (change.before, change.after):
        if value not in ("none", *DTYPES):
            return Unknown(f"there is no model of {value!r}: PowerSGD and others do work of their own in each exchange", VERIFY)
    refused = not_data_parallel(model)
    backend = stated(model, "backend")
    if refused is None and change.after == "bf16" and backend == "gloo":
        refused = Unknown("bf16_compress_hook raises TypeError on gloo", "gradient_compression='fp16', or NCCL")
    if refused is not None:  # an Unknown is falsy
        return refused
    return with_exchange(model, EXCHANGE_ERROR, [_OVERLAP, "the loss is not looked at"], compression=change.after)


@transform("backend", model="collective", error=BACKEND_ERROR, needs=("host_ops", "collectives"))
def backend(model: StepModel, change: Change) -> StepModel | Unknown:
    """The exchange over another library, hidden behind backward as far as there is time; only where both were probed."""
    for value in (change.before, change.after):
        if not isinstance(value, str) or not value:
            return Unknown(f"{value!r} names no backend of torch.distributed", "'gloo' or 'nccl'")
    if change.after == "nccl" and not model.measured.is_device_job:
        return Unknown("NCCL serves tensors of GPUs, and the run used none", "a job on GPUs")
    refused = not_data_parallel(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    text = "copies between device and host for the old backend stay, its calls no longer take time from backward"
    return with_exchange(model, BACKEND_ERROR, [text], backend=change.after)


@transform("zero_stage", model="collective", error=SHARDING_ERROR, needs=("host_ops", "collectives"))
def zero_stage(model: StepModel, change: Change) -> StepModel | Unknown:
    """State in parts: gradients are scattered and parameters gathered, and each rank updates its part of them."""
    if any(type(value) is not int or value not in _STAGES for value in (change.before, change.after)):
        return Unknown(f"{change.before!r} -> {change.after!r}: stages are 0 to 3", "a whole number from 0 to 3")
    if change.before != 0:
        return Unknown("the run shards its state already, and what it exchanges is not told apart", "a run with zero_stage=0")
    if model.measured.is_device_job:
        return Unknown("what of a device's step the optimizer takes on each rank was not recorded", VERIFY)
    refused = not_data_parallel(model)
    if refused is not None:  # an Unknown is falsy
        return refused
    update = phases_us(model, "optimizer")
    if isinstance(update, Unknown):
        return update
    share = Estimate.exactly(1.0 / len(model.measured.ranks))
    edited = model.with_phase_edit(change.knob, PhaseEdit(("optimizer",), factor_of(change.knob)), share)
    texts = [_OVERLAP, "parameters are gathered bucket by bucket, and updated at an even share per rank", "memory is not checked"]
    return with_exchange(edited, SHARDING_ERROR, texts, zero_stage=change.after)
