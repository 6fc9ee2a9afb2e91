"""How a run exchanges its gradients, as a setting, and the model of the step with another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from perfnb.config.mapping import has_knob, value_of
from perfnb.prediction import Unknown
from perfnb.whatif.collective_exchange import added_by
from perfnb.whatif.collective_traffic import ADDED, Setting, Traffic

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

VERIFY: Final = "a run with the change, compared by verify"
ACCUMULATION_ERROR: Final = 0.05  # a prior (whatif contract, section 7)

_FEWEST_RANKS: Final = 2
_KINDS: Final = ("ddp",)


def exchanged_per_update(model: StepModel, micro_batches: int) -> StepModel | Unknown:
    """The model with another number of micro-batches per update, as far as the exchange of gradients goes.

    They are exchanged once per update, or with `sync_every_micro_batch` as often as there are micro-batches. A job of one rank
    exchanges none.
    """
    found = model.measured
    if len(found.ranks) < _FEWEST_RANKS and not found.missing_ranks:
        return model
    refused = not_data_parallel(model)
    if refused is None and found.is_device_job:
        refused = Unknown("the replay of a device job repeats the exchange with each micro-batch", VERIFY)
    if refused is not None:  # an Unknown is falsy
        return refused
    each = stated(model, "sync_every_micro_batch")
    text = "gradients are exchanged in each micro-batch" if each else "all micro-batches but the last run in no_sync"
    return with_exchange(model, ACCUMULATION_ERROR, [text], micro_batches=micro_batches)


def with_exchange(model: StepModel, error: float, texts: Sequence[str], **after: Any) -> StepModel | Unknown:
    """The model with other settings of the exchange, all changes so far together."""
    traffic = model.traffic or _recorded(model)
    if isinstance(traffic, Unknown):
        return traffic
    traffic = replace(traffic, after=replace(traffic.after, **after))
    edited = replace(model, traffic=traffic)
    if model.measured.is_device_job:
        texts = [*texts, "not validated on a GPU"]
    alike = replace(traffic.after, micro_batches=traffic.now.micro_batches, syncs_each=traffic.now.syncs_each)
    if alike != traffic.now:
        per_exchange = float(traffic.exchanged_us.mean()) / traffic.now.exchanges
        added = added_by(model, traffic.now, traffic.after, per_exchange)
        if isinstance(added, Unknown):
            return added
        edited = edited.with_estimates(**{ADDED: added})
    return edited.with_error("collective", error, "all time with other ranks is the exchange of gradients", *texts)


def _recorded(model: StepModel) -> Traffic | Unknown:
    """The exchange as it was recorded, or why it is not known."""
    found = model.measured
    if found.missing_ranks or len(found.ranks) < _FEWEST_RANKS:
        missing = ", ".join(map(str, found.missing_ranks[:5])) or "all but one"
        return Unknown(
            f"what exchanging costs shows on the rank that waits least, and ranks {missing} were not read", "all ranks"
        )
    exchanged = np.min([rank.peers_us for rank in found.ranks], axis=0)
    if not exchanged.any():
        run = model.run
        told = run.missing.get("communication", "the run shows no time in which ranks exchange data")
        return Unknown(told, "a run of perfnb.record of a job on CPUs, or traces of all ranks")
    count = _micro_batches(model)
    if isinstance(count, Unknown):
        return count
    syncs_each = stated(model, "sync_every_micro_batch")
    if count > 1 and not isinstance(syncs_each, bool):
        reason = f"whether gradients are exchanged in each of {count} micro-batches or once is not known"
        return Unknown(reason, "a config with sync_every_micro_batch")
    cap = stated(model, "bucket_cap_mb")
    now = Setting(
        micro_batches=count,
        syncs_each=bool(syncs_each),
        bucket_cap_mb=tuple(cap) if isinstance(cap, list) else cap,
        find_unused=bool(stated(model, "find_unused_parameters")),
        compression=stated(model, "gradient_compression") or "none",
        backend=str(stated(model, "backend") or ("nccl" if found.is_device_job else "gloo")),
        zero_stage=stated(model, "zero_stage") or 0,
    )
    return Traffic(now, now, exchanged)


def _micro_batches(model: StepModel) -> int | Unknown:
    told = stated(model, "gradient_accumulation_steps")
    if type(told) is int and told >= 1:
        return told
    steps = model.run.steps
    seen = steps.loc[steps["step"].isin(model.measured.numbers), "micro_batches"].dropna().unique()
    if len(seen) == 1:
        return int(seen[0])
    return Unknown("how many micro-batches an update has is not known", "a config with gradient_accumulation_steps")


def not_data_parallel(model: StepModel) -> Unknown | None:
    """Why the exchange is none of DDP's; None where it is, or where the config does not say."""
    told = stated(model, "parallelism")
    if told is None or told in _KINDS:
        return None
    return Unknown(f"parallelism is {told}, and the model of the exchange is DDP's", VERIFY)


def stated(model: StepModel, knob: str) -> Any:
    """Value of a knob in the config, None where it does not hold it."""
    return value_of(model.config, knob) if has_knob(model.config, knob) else None
