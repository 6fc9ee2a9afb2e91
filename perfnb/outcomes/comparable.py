"""Whether two runs can be compared: what makes an outcome void, what keeps it out of the statistics, how busy the host was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from perfnb import text
from perfnb.config.mapping import has_knob, value_of
from perfnb.ledger import steady_steps, step_ledger
from perfnb.prediction import Change
from perfnb.run import Run
from perfnb.whatif.known_parts import pauses_us
from perfnb.work import rank_work

LARGEST_VARIATION: Final = 0.3  # whatif contract, section 3
PREFETCH_OF_TORCH: Final = 2  # torch.utils.data.DataLoader: the default where num_workers > 0, else None
_MOST_NAMED: Final = 5

Config = Mapping[str, Any]


def differences(before: Config, after: Config) -> tuple[Change, ...]:
    """Values in which two configs differ, those of nested mappings by the knob's own name; none where either is not known.

    Examples
    --------
    >>> differences({"data": {"num_workers": 0}}, {"data": {"num_workers": 4}})
    (Change(knob='num_workers', before=0, after=4),)
    """
    if not before or not after:
        return ()
    found: list[Change] = []
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old and new:
            found += differences(old, new)
        elif not _same(old, new):
            found.append(Change(str(key), old, new))
    return tuple(found)


def why_void(changes: Sequence[Change], before: Run, after: Run, configs: tuple[Config, Config]) -> str:
    """Why what two runs took cannot be compared; empty where it can."""
    if len(before.ranks) != len(after.ranks):
        return f"{text.count(len(before.ranks), 'rank')} before, {len(after.ranks)} after"
    return _another_machine(before, after) or (_other_changes(changes, *configs) if all(configs) else "")


def _another_machine(before: Run, after: Run) -> str:
    one, other = before.machine, after.machine
    if one.devices != other.devices:
        return f"another machine: {', '.join(one.devices) or 'no device'} before, {', '.join(other.devices) or 'no device'} after"
    if one.cpu_capacity and other.cpu_capacity and one.cpu_capacity != other.cpu_capacity:
        return f"another machine: {one.cpu_capacity:g} cores before, {other.cpu_capacity:g} after"
    if _hosts(before) and _hosts(after) and _hosts(before) != _hosts(after):
        return "another machine: the hosts have other names"
    if one.torch_version and other.torch_version and one.torch_version != other.torch_version:
        return f"another torch: {one.torch_version} before, {other.torch_version} after"
    return ""


def _other_changes(changes: Sequence[Change], before: Config, after: Config) -> str:
    for change in changes:
        sides = (before, change.before, "before", "starts elsewhere"), (after, change.after, "after", "was not applied")
        for config, wanted, when, what in sides:
            if has_knob(config, change.knob) and not _same(found := value_of(config, change.knob), wanted):
                return f"{change.knob} is {found!r} {when}, not {wanted!r}: the change {what}"
    found = [change for change in differences(before, after) if not _follows(change, changes)]
    others = sorted({change.knob for change in found} - {change.knob for change in changes})
    return f"the configs also differ in {', '.join(others)}" if others else ""


def _follows(change: Change, changes: Sequence[Change]) -> bool:
    """Whether a difference comes with a change by itself: a loader has a prefetch factor only where it has workers."""
    if change.knob != "prefetch_factor" or {change.before, change.after} != {None, PREFETCH_OF_TORCH}:
        return False
    workers = [(each.before, each.after) for each in changes if each.knob == "num_workers"]
    return any((not before) != (not after) for before, after in workers)


def cautions(run: Run, when: str) -> Iterator[str]:
    """Why a run says less than its number of steps promises: the refusals of models that hold for every prediction.

    Parameters
    ----------
    run
        The run.
    when
        "before" or "after".
    """
    if run.world_size and run.world_size > len(run.ranks):
        yield f"{len(run.ranks)} of {run.world_size} ranks were read {when}"
    own = _own_times(run)
    if own is None:
        return
    numbers, times = own
    variation = float(times.std() / times.mean()) if times.mean() > 0 else 0.0
    if variation > LARGEST_VARIATION:
        far = [str(number) for number, time in zip(numbers, times, strict=True) if time > 1.5 * float(np.median(times))]
        named = f" (steps {', '.join(far[:_MOST_NAMED])} stand out)" if far else ""
        yield f"steps {when} vary by {text.share(variation)} for reasons other than loading{named}"


def pressure(run: Run) -> float | None:
    """Median share of time in which some task of the host waited for a core, during the steady steps; None where not known.

    Linux: /proc/pressure/cpu, "some", of 10 s (kernel documentation, PSI).
    """
    samples = run.host_samples[["time_us", "pressure_cpu_share"]].dropna()
    steps = steady_steps(run)
    if samples.empty or steps.empty:
        return None
    low, high = float(steps["start_us"].min()), float((steps["start_us"] + steps["duration_us"]).max())
    within = samples[samples["time_us"].between(low, high)]
    found = float(within["pressure_cpu_share"].median()) if len(within) else math.nan
    return found if math.isfinite(found) else None


def _own_times(run: Run) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]] | None:
    """Number of each steady step and its longest work of a rank outside the loader; None where no part of a step is known.

    Known pauses do not count: a save at each tenth step makes steps uneven, and is in the mean of both runs.
    """
    if run.phases.empty and not run.is_device_job:
        return None
    steps = steady_steps(run)[["rank", "step"]]
    ledger = step_ledger(run).merge(steps, on=["rank", "step"])
    if ledger.empty:
        return None
    work = rank_work(ledger)
    own = (
        work.assign(own_us=work["work_us"] - work["input_us"]).pivot_table(index="step", columns="rank", values="own_us").dropna()
    )
    numbers = [int(step) for step in own.index]
    times = {rank: own[rank].to_numpy(dtype="float64") for rank in run.ranks if rank in own}
    longest = np.max(list(times.values()), axis=0)
    if longest.std() > LARGEST_VARIATION * longest.mean():
        longest = np.max([time - pauses_us(run, rank, numbers) for rank, time in times.items()], axis=0)
    return numbers, longest


def _hosts(run: Run) -> frozenset[str]:
    return frozenset(str(host) for host in run.host_samples["host"].dropna())


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one; a config that was read again holds lists for tuples, and texts for what JSON lacks."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    return (one is None) == (other is None) and str(one) == str(other)
