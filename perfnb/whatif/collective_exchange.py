"""Time of an exchange of gradients under other settings: buckets of torch's rules, times of the link, overlap with backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from perfnb.analyses.gradient_syncs import FORWARD, search_us
from perfnb.analyses.transfers import step_of_calls
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.collective import MIB, bucket_bytes, bucket_limits, buckets, exposed_us, ready_us
from perfnb.whatif.collective_arrivals import Arrivals, arrivals
from perfnb.whatif.collective_link import Link, Times, link_of
from perfnb.whatif.collective_traffic import Setting
from perfnb.whatif.phase_work import phases_us
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel

Floats = NDArray[np.float64]

DTYPES: Final = {"fp16": "float16", "bf16": "bfloat16"}
LARGEST_MISS_SHARE: Final = 0.10  # whatif contract, section 3: what a model may miss of the unchanged run
_BITMAP_BYTES: Final = 4  # per parameter: reducer.cpp exchanges an int for each where it searches for unused ones
_HALF: Final = 0.5
_SHARDED_GRADIENTS: Final = 2  # up to this stage parameters are whole on each rank

_known: WeakKeyDictionary[Run, Arrivals | Unknown] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of one exchange.

    Attributes
    ----------
    whole_us
        All of its calls, one after another.
    exposed_us
        What of them is left when backward has ended, where they hinder nobody.
    """

    whole_us: float
    exposed_us: float

    def share(self, measured_us: float) -> float:
        """Share of the overlap that really saves time, so that the exchange costs what was measured; from 0 to 1."""
        hidden = self.whole_us - self.exposed_us
        return min(max((self.whole_us - measured_us) / hidden, 0.0), 1.0) if hidden > 0.0 else 1.0

    def at(self, share: float) -> float:
        """Cost where so much of the overlap saves time: cores that exchanging takes from backward are not won by overlap."""
        return self.whole_us - share * (self.whole_us - self.exposed_us)


def added_by(model: StepModel, now: Setting, after: Setting, measured_us: float) -> Estimate | Unknown:
    """By how much one exchange becomes longer, or why that is not known.

    Parameters
    ----------
    model
        The model of the run.
    now, after
        Settings of the exchange; how often it happens is no matter of this.
    measured_us
        What one exchange costs now.
    """
    run = model.run
    found = _known.get(run)
    if found is None:
        found = _known[run] = arrivals(run)
    if isinstance(found, Unknown):
        return found
    link = link_of(run, now.backend)
    if isinstance(link, Unknown):
        return link
    times = _phase_times(model, found, now)
    if isinstance(times, Unknown):
        return times
    odd = _unlike_recorded(run, found, now)
    if odd is not None:
        return odd
    costs = [_cost(found, link, each, now, after, times) for each in (now, after)]
    for cost in costs:
        if isinstance(cost, Unknown):
            return cost
    before, later = (each for each in costs if isinstance(each, Cost))
    share = before.share(measured_us)
    missed = measured_us - before.at(share)
    if abs(missed) * now.exchanges > LARGEST_MISS_SHARE * model.before_us:
        reason = (
            f"the calls of an exchange take {before.whole_us / 1e3:.3g} ms, {before.exposed_us / 1e3:.3g} after backward, "
            f"but the exchange costs {measured_us / 1e3:.3g} ms of the step"
        )
        return Unknown(reason, "a quieter run, whose ranks do not wait for one another for other reasons")
    added = later.at(share if now.backend == after.backend else 1.0) - before.at(share)
    saved = _search(run, now, after)
    return saved if isinstance(saved, Unknown) else Estimate(added - saved.value, added - saved.high, added - saved.low)


def layout_bytes(found: Arrivals, setting: Setting) -> tuple[int, ...]:
    """Size of each bucket in float32, in the order of their exchange."""
    cap = setting.bucket_cap_mb
    layout = buckets(found.gradients, bucket_limits(cap), is_rebuilt=not setting.find_unused)
    return bucket_bytes(found.gradients, layout)


def _phase_times(model: StepModel, found: Arrivals, now: Setting) -> tuple[float, float] | Unknown:
    """Forward and backward of one micro-batch, in microseconds: of a device job as its trace shows, its forward not known."""
    if model.measured.is_device_job:
        return 0.0, found.span_us
    times = [phases_us(model, phase) for phase in ("forward", "backward")]
    for each in times:
        if isinstance(each, Unknown):
            return each
    forward, backward = (float(each) / now.micro_batches for each in times if not isinstance(each, Unknown))
    return forward, backward


def _cost(
    found: Arrivals, link: Link, setting: Setting, now: Setting, after: Setting, times: tuple[float, float]
) -> Cost | Unknown:
    forward_us, backward_us = times
    layout = buckets(found.gradients, bucket_limits(setting.bucket_cap_mb), is_rebuilt=not setting.find_unused)
    sizes = bucket_bytes(found.gradients, layout)
    ready = list(ready_us((found.shares * backward_us).tolist(), layout))
    if setting.zero_stage:
        return _sharded(link, setting, sizes, ready, (forward_us, backward_us))
    call = _times(link, setting, now, after)
    if isinstance(call, Unknown):
        return call
    durations = [call(size) for size in sizes]
    if setting.find_unused:
        plain = _times(link, replace(setting, compression="none"), now, after)
        if isinstance(plain, Unknown):
            return plain
        durations.append(plain(float(_BITMAP_BYTES * len(found.gradients))))
        ready.append(backward_us)
    return Cost(sum(durations), exposed_us(backward_us, ready, durations))


def _sharded(
    link: Link, setting: Setting, sizes: Sequence[int], ready: Sequence[float], times: tuple[float, float]
) -> Cost | Unknown:
    """Cost with sharded state (Rajbhandari et al., ZeRO, 2020, section 7).

    Stages 1 and 2 scatter sums of gradients in backward and gather parameters after the update: together as many bytes as an
    all-reduce. Stage 3 gathers parameters in forward and again in backward: half as many more.
    """
    forward_us, backward_us = times
    if setting.compression != "none":
        return Unknown("sharded gradients in 16 bits are not modelled", "one of the two changes")
    scatter = link.probed("reduce_scatter", "float32", setting.backend)
    gather = link.probed("all_gather", "float32", setting.backend)
    if isinstance(scatter, Unknown):
        return scatter
    if isinstance(gather, Unknown):
        return gather
    scattered, gathered = [scatter(size) for size in sizes], [gather(size) for size in sizes]
    if setting.zero_stage <= _SHARDED_GRADIENTS:
        late = sum(gathered)
        return Cost(sum(scattered) + late, exposed_us(backward_us, ready, scattered) + late)
    both = [one + other for one, other in zip(scattered, gathered, strict=True)]
    late = max(sum(gathered) - forward_us, gathered[-1])  # forward begins with what backward ends with
    return Cost(sum(both) + sum(gathered), exposed_us(backward_us, ready, both) + late)


def _times(link: Link, setting: Setting, now: Setting, after: Setting) -> Times | Unknown:
    """Time of exchanging a bucket by its size in float32; both settings are timed by one source."""
    must_probe = (now.compression, now.backend, now.zero_stage) != (after.compression, after.backend, after.zero_stage)
    dtype = DTYPES.get(setting.compression, "float32")
    calls = link.probed("all_reduce", dtype, setting.backend) if must_probe else link.all_reduce()
    if setting.compression == "none" or isinstance(calls, Unknown):
        return calls
    cast = link.cast_us(dtype)
    return cast if isinstance(cast, Unknown) else lambda size: calls(_HALF * size) + cast(size)


def _unlike_recorded(run: Run, found: Arrivals, now: Setting) -> Unknown | None:
    """Why the buckets that were exchanged are not those of torch's rules; None where they are."""
    ratio = _HALF if now.compression != "none" else 1.0
    expected = [round(ratio * size) for size in layout_bytes(found, now)]
    calls = run.collectives[run.collectives["collective"].eq("all_reduce")]
    calls = calls.assign(step=step_of_calls(run)).dropna(subset=["step", "bytes"])
    if now.find_unused:
        calls = calls[~calls["dtype"].isin(["int", "Int"])]
    calls = calls.sort_values("start_us")
    firsts = calls.groupby("rank")["step"].transform("min")
    for keys, own in calls[calls["step"].ne(firsts)].groupby(["rank", "step"]):  # a trace may begin inside its first step
        sizes = own["bytes"].astype("int64").to_list()
        if sizes[: len(expected)] == expected and len(sizes) % len(expected) == 0:
            continue
        rank, step = (int(key) for key in keys)  # type: ignore[call-overload]
        shown = ", ".join(f"{size / MIB:.3g}" for size in sizes[:6])
        told = ", ".join(f"{size / MIB:.3g}" for size in expected[:6])
        reason = f"step {step} of rank {rank} exchanged calls of {shown} MiB, buckets by torch's rules are {told} MiB"
        return Unknown(reason, "a job whose only all-reduces are those of DDP, with the bucket_cap_mb of the config")
    return None


def _search(run: Run, now: Setting, after: Setting) -> Estimate | Unknown:
    """What no longer searching for unused parameters saves per exchange."""
    if now.find_unused == after.find_unused:
        return Estimate.exactly(0.0)
    if after.find_unused:
        return Unknown("how long a search for unused parameters would take is not known", "a run with find_unused_parameters")
    found = search_us(run)
    if np.isnan(found):
        return Unknown("the search for unused parameters was not recorded", f"a profiler's window of a job under {FORWARD}")
    per_exchange = found * max(now.micro_batches // now.exchanges, 1)
    return Estimate(0.75 * per_exchange, _HALF * per_exchange, per_exchange)  # the profiler is in what it recorded
