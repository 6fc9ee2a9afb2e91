"""Peak memory beside a prediction of time: the best source there is for the knobs that change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakKeyDictionary

import pandas as pd

from perfnb.analyses.device_memory import device_memory, peaks_of
from perfnb.analyses.held_memory import held_memory
from perfnb.prediction import Change, MemoryPart, Prediction, Unknown
from perfnb.read.memory_snapshot.allocator_settings import KNOBS
from perfnb.run import Run
from perfnb.text import byte_size
from perfnb.whatif.allocator_events import allocator_events
from perfnb.whatif.allocator_replay import predict_allocator, smallest_capacity
from perfnb.whatif.dry_run import MemoryEstimate, MemoryModel
from perfnb.whatif.dry_run_levels import SMALLEST_SHARE
from perfnb.whatif.dry_run_setup import KNOBS_OF_DRY_RUN
from perfnb.whatif.memory_fit import needed_bytes
from perfnb.whatif.wanted_changes import wanted_changes

ALLOCATOR_KNOBS: Final = frozenset({*KNOBS, "memory_fraction"})
SIZE_POWER: Final = MappingProxyType({"batch_size": 1, "sequence_length": 2})
"""Knob to the highest power of it that activations grow with: attention that is written out keeps a square of scores."""

MEMORY_KNOBS: Final = ALLOCATOR_KNOBS | KNOBS_OF_DRY_RUN
RUNS_OUT: Final = "may run out of memory"

_MODEL_NEEDS: Final = "model=perfnb.MemoryModel(model_fn, batch_fn, loss_fn, optimizer_fn, config=...), which a dry run trains"
_peaks: WeakKeyDictionary[Run, pd.DataFrame] = WeakKeyDictionary()
_PEAK_NEEDS: Final = "perfnb.record of a training on a GPU, or a memory snapshot (perfnb.read_memory_snapshot)"


def memory_beside(
    run: Run,
    changes: Mapping[str, Any] | Sequence[Change],
    config: Mapping[str, Any] | None = None,
    *,
    model: MemoryModel | None = None,
    usable_bytes: int | None = None,
    rank: int = 0,
    device: int = 0,
) -> MemoryPart | Unknown:
    """Peak memory of a device after changes; all of them in one replay or dry run, their effects are never added.

    Settings of the allocator are replayed (a memory snapshot, or the blocks of the dry run). Everything else comes from a dry run
    of `model`. Without one, batch size and sequence length are bounded by what the run recorded: what stays between steps stays,
    and what comes and goes grows at most with the batch, or with the square of the length. Not validated on a GPU.

    Parameters
    ----------
    run
        The run without the changes.
    changes
        Knob to value after, or changes; those that do not concern memory are passed over.
    config
        The training's config; the run's own by default.
    model
        The training, for a dry run.
    usable_bytes
        Memory of the device less what others hold; by default what the run recorded of it.
    rank, device
        Whose memory.

    Returns
    -------
    MemoryPart or Unknown
        Unknown says what would tell.
    """
    config = run.config if config is None else config
    wanted = wanted_changes(changes, config)
    if isinstance(wanted, Unknown):
        return wanted
    own = [change for change in wanted if change.knob in MEMORY_KNOBS and change.before != change.after]
    if not own:
        return Unknown("no change concerns the memory of a device", f"a change of {', '.join(sorted(MEMORY_KNOBS))}")
    now = _recorded(run, config, rank, device)
    usable = usable_bytes if usable_bytes is not None else _whole(now, "usable_bytes")
    settings = {change.knob: change.after for change in own if change.knob in ALLOCATOR_KNOBS}
    others = {change.knob: change.after for change in own if change.knob not in ALLOCATOR_KNOBS}
    if not others:
        return _replayed(run, settings, usable, rank, device)
    if model is not None:
        return _dry(model, others, settings, usable, now)
    if settings or not others.keys() <= SIZE_POWER.keys():
        named = ", ".join(sorted(others))
        return Unknown(f"what {named} does to the memory takes a dry run of the training", _MODEL_NEEDS)
    return _bounded(run, [change for change in own if change.knob in SIZE_POWER], usable, now)


def memory_part(
    run: Run, changes: Mapping[str, Any] | Sequence[Change], config: Mapping[str, Any] | None = None
) -> MemoryPart | None:
    """Memory beside a prediction of time, from the run alone; None where the changes do not concern it, or nothing tells."""
    found = memory_beside(run, changes, config)
    return None if isinstance(found, Unknown) else found


def memory_problem(
    run: Run, changes: Mapping[str, Any] | Sequence[Change], config: Mapping[str, Any] | None = None
) -> Unknown | None:
    """Why no speed may be shown for these changes: their memory may not suffice; None where nothing speaks against it."""
    part = memory_part(run, changes, config)
    return out_of_memory_reason(part) if part is not None and part.is_at_risk else None


def predict_peak(
    run: Run, changes: Mapping[str, Any] | Sequence[Change], config: Mapping[str, Any] | None = None
) -> Prediction | Unknown:
    """Peak memory as a prediction of its own, metric `memory_bytes`, for knobs that are of memory alone too."""
    part = memory_beside(run, changes, config)
    if isinstance(part, Unknown):
        return part
    notes = (f"level {part.level}: {part.basis}", part.verdict, *part.assumptions)
    before, after, low, high = map(float, (part.before_bytes, part.after_bytes, part.low_bytes, part.high_bytes))
    return Prediction("memory_bytes", before, after, low, high, "prior", notes, "memory 1", memory=part)


def out_of_memory_reason(part: MemoryPart) -> Unknown:
    """The answer in place of a speed where memory may not suffice.

    Examples
    --------
    >>> part = MemoryPart("allocated", 60, 90, 80, 120, 100, "D", "a bound")
    >>> out_of_memory_reason(part).reason
    'may run out of memory: 90 B allocated at the peak (up to 120 B, level D) of 100 B that are usable; so no speed is shown'
    """
    word = part.verdict if part.is_at_risk else RUNS_OUT
    return Unknown(
        f"{word}: {byte_size(part.after_bytes)} {part.what} at the peak (up to {byte_size(part.high_bytes)}, level {part.level}) "
        f"of {byte_size(part.usable_bytes or 0)} that are usable; so no speed is shown",
        "a change that saves memory beside it, or a dry run with measured peaks (perfnb.predict_memory), which narrows the range",
    )


def _recorded(run: Run, config: Mapping[str, Any], rank: int, device: int) -> pd.Series | None:
    """Peaks and usable bytes of one device as recorded; None where nothing was."""
    peaks = _peaks.get(run)
    if peaks is None:  # kept for as long as the run lives: a slider asks at each move
        tables = (None if table.empty else table for table in (run.allocator, run.allocations))
        peaks = _peaks[run] = peaks_of(*tables)
    if peaks.empty:
        return None
    found = device_memory(peaks, run.machine, config, run.gpu_samples)
    own = found[found["rank"].eq(rank) & found["device"].eq(device)]
    return None if own.empty else own.iloc[0]


def _whole(row: pd.Series | None, name: str) -> int | None:
    return None if row is None or pd.isna(row[name]) else int(row[name])


def _replayed(run: Run, settings: Mapping[str, Any], usable: int | None, rank: int, device: int) -> MemoryPart | Unknown:
    """Other settings of the allocator, by a replay of the recorded requests."""
    found = predict_allocator(run, settings, rank, device, usable)
    if isinstance(found, Unknown):
        return found
    after, low, high = found.after_reserved_bytes, *_around(found.after_reserved_bytes)
    notes = ["simulated, from an empty allocator: the change is what is predicted"]
    if found.unvalidated:
        notes.append(f"rules that no recording has confirmed: {', '.join(found.unvalidated)}")
    if usable is not None and high > usable:
        events = allocator_events(run, rank, device)
        assert not isinstance(events, Unknown)  # noqa: S101 - the replay above had them
        required = smallest_capacity(events, found.after.settings)
        low, high = _around(required)
        notes.append(f"torch gives its cache back before it fails: {byte_size(required)} are required, the rest is cache")
    if found.after.out_of_room is not None:
        notes.append(f"the replay fails: {found.after.out_of_room.error.verdict}")
        low = high = max(high, (usable or 0) + 1)
    return MemoryPart("reserved", found.before_reserved_bytes, after, low, high, usable, "B", "a replay of the recorded requests",
                      tuple(notes))  # fmt: skip


def _around(size: int) -> tuple[int, int]:
    return int(size * (1 - SMALLEST_SHARE)), int(size * (1 + SMALLEST_SHARE))


def _dry(
    model: MemoryModel, others: Mapping[str, Any], settings: Mapping[str, Any], usable: int | None, now: pd.Series | None
) -> MemoryPart | Unknown:
    """A dry run with the changes; the blocks of which go through the allocator where its settings change as well."""
    made = model.estimate(others)
    if isinstance(made, Unknown):
        return made
    before = _whole(now, "allocated_peak_bytes")
    if before is None:
        first = model.estimate({})
        before = first.peak_bytes if isinstance(first, MemoryEstimate) else made.peak_bytes
    high, notes = needed_bytes(made), list(made.assumptions)
    if settings:
        if made.run is None:
            return Unknown("there is no dry run whose blocks the allocator could be given", _MODEL_NEEDS)
        found = predict_allocator(made.run, settings, capacity_bytes=usable)
        if isinstance(found, Unknown):
            return found
        high = max(made.high_bytes, found.after_reserved_bytes)
        notes.append(f"blocks of the dry run through a simulated allocator: {byte_size(found.after_reserved_bytes)} reserved")
    return MemoryPart(
        "allocated", before, made.peak_bytes, made.low_bytes, high, usable, made.level, made.basis, tuple(dict.fromkeys(notes))
    )


def _bounded(run: Run, changes: Sequence[Change], usable: int | None, now: pd.Series | None) -> MemoryPart | Unknown:
    """Batch size and sequence length, from what stays between the steps and what comes and goes."""
    held, reserved = held_memory(run.allocator), _whole(now, "reserved_peak_bytes")
    if held is None or held.passing_bytes <= 0:
        reason = "what the device holds between steps and at its peak was not recorded"
        return Unknown(run.missing.get("allocator", reason), f"{_PEAK_NEEDS}; or {_MODEL_NEEDS}")
    least = most = 1.0
    for change in changes:
        values = change.before, change.after
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 1 for value in values):
            return Unknown(f"{change}: a number of samples or tokens is 1 or more", "whole numbers")
        ratio = change.after / change.before
        least, most = least * ratio, most * ratio ** SIZE_POWER[change.knob]
    before = int(held.kept_bytes + held.passing_bytes)
    ends = sorted((before, *(int(held.kept_bytes + held.passing_bytes * ratio) for ratio in (least, most))))
    notes = [
        "what stays between steps stays, what comes and goes grows at most with the batch, or with the square of the length",
        "the cache and holes of the allocator are left out",
    ]
    if reserved is not None:
        notes.append(f"torch reserved {byte_size(reserved)} for a peak of {byte_size(before)}")
    after = int(held.kept_bytes + held.passing_bytes * least)
    return MemoryPart("allocated", before, after, ends[0], ends[-1], usable, "D", "bounds from the recorded ends of steps",
                      tuple(notes))  # fmt: skip
