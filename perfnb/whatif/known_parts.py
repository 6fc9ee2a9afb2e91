"""Parts of a step that are known by name: collecting garbage, compiling, saving, waiting of crowded threads; step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.contention_free import PHASES
from perfnb.analyses.pauses import pauses_in_parts
from perfnb.detector import Unmeasured
from perfnb.detectors.checkpoint_stall import checkpoint_stall
from perfnb.detectors.recompilation import recompilation
from perfnb.intervals import Intervals, covered, union
from perfnb.ledger import step_ledger
from perfnb.prediction import Unknown
from perfnb.run import Run

Floats = NDArray[np.float64]
PerRank = Mapping[int, Floats]

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})
_PAUSED: Final = tuple(
    f"{phase}.{kind}" for kind in ("cpu", "wall") for phase in ("other", *(each for each in PHASES if each != "other"))
)
"""Ledger parts in which the training thread may pause; outside of all phases first."""

_COMPUTE: Final = ("forward", "backward", "optimizer")
_known: WeakKeyDictionary[Run, dict[tuple[str, tuple[int, ...]], Part | Unknown]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Time of one cause, per rank, one value for each steady step.

    Attributes
    ----------
    cpu_us, blocked_us
        On a core, and waiting, both within what the models take for the step's own work.
    runqueue_us
        Waiting for a core, which the models leave out of the step's own work.
    spans
        When, per rank, of a device job whose events were recorded one by one; a replay can do without them.
    """

    cpu_us: PerRank
    blocked_us: PerRank = field(default_factory=lambda: _NOTHING)
    runqueue_us: PerRank = field(default_factory=lambda: _NOTHING)
    spans: Mapping[int, Intervals] = field(default_factory=lambda: _NOTHING)

    def of(self, times: PerRank, rank: int, rows: Sequence[int]) -> Floats:
        """Values of some steady steps of a rank; zeros where the rank has none."""
        own = times.get(rank)
        return np.zeros(len(rows)) if own is None else own[list(rows)]

    def own_us(self, rank: int) -> Floats | float:
        """What the step's own work would be shorter by without it."""
        return self.cpu_us.get(rank, 0.0) + self.blocked_us.get(rank, 0.0)

    @property
    def total_us(self) -> float:
        """Mean time per step, over ranks."""
        ranks = [each for each in (self.cpu_us, self.blocked_us, self.runqueue_us) if each]
        return sum(float(np.mean([np.mean(times) for times in each.values()])) for each in ranks)


def part_share(knob: str) -> str:
    """Name of the estimate of how much of a knob's part goes."""
    return f"share of the part of {knob}"


def known_part(run: Run, name: str, steps: Sequence[int]) -> Part | Unknown:
    """A part by its name, or why the ledger of a run does not hold it; kept for as long as the run lives.

    Parameters
    ----------
    run
        The run.
    name
        "garbage", "compiling", "saving" or "crowded_threads".
    steps
        Numbers of the steady steps.
    """
    kept, key = _known.setdefault(run, {}), (name, tuple(steps))
    if key not in kept:
        kept[key] = _MAKERS[name](run, steps)
    return kept[key]


def pauses_us(run: Run, rank: int, steps: Sequence[int]) -> Floats:
    """Time of each steady step of a rank that is known to go to collecting garbage, compiling and saving."""
    total = np.zeros(len(steps))
    for name in ("garbage", "compiling", "saving"):
        found = known_part(run, name, steps)
        if isinstance(found, Part):
            total = total + found.own_us(rank)
    return total


def _garbage(run: Run, steps: Sequence[int]) -> Part | Unknown:
    if "gc" not in run.signals:
        return Unknown(run.missing.get("gc", "pauses of Python's garbage collector were not recorded"), "a run of perfnb.record")
    return _paused(run, run.host_ops[run.host_ops["category"].eq("gc")], steps)


def _compiling(run: Run, steps: Sequence[int]) -> Part | Unknown:
    try:
        found = recompilation.evidence(run)
    except Unmeasured as error:
        return Unknown(str(error), "a run of perfnb.record, which hears of each compilation")
    return _paused(run, found, steps)


def _saving(run: Run, steps: Sequence[int]) -> Part | Unknown:
    needs = "a run of perfnb.record on Linux, of some seconds, that saves more than once"
    try:
        found = checkpoint_stall.evidence(run, _ledger(run, steps))
    except Unmeasured as error:
        return Unknown(str(error), needs)
    if found.empty:
        return Unknown("no time of saving can be told apart in the steps of this run", needs)
    lost = _per_rank(found, run.ranks, steps)
    if run.is_device_job:
        return Part(_within_idle(run, lost, steps))
    other = run.phases[run.phases["phase"].eq("other")]
    blocked, cpu = (_per_rank(other.rename(columns={name: "lost_us"}), run.ranks, steps) for name in ("blocked_us", "cpu_us"))
    waiting = {
        rank: lost[rank] * np.divide(blocked[rank], own := blocked[rank] + cpu[rank], out=np.zeros(len(steps)), where=own > 0)
        for rank in run.ranks
    }
    return Part({rank: lost[rank] - waiting[rank] for rank in run.ranks}, waiting)


def _crowded_threads(run: Run, steps: Sequence[int]) -> Part | Unknown:
    if run.is_device_job:
        return Unknown(
            "on a device job, waiting inside forward and backward is for the device", "a run with the other number of threads"
        )
    ledger = _ledger(run, steps)
    if ledger["part"].str.endswith(".wall").any() or "schedstat" not in run.signals:
        reason = run.missing.get("schedstat", "the run does not tell waiting for a core from other waiting")
        return Unknown(reason, "a run of perfnb.record on Linux")
    kinds = {
        kind: _per_rank(ledger[ledger["part"].isin([f"{phase}.{kind}" for phase in _COMPUTE])], run.ranks, steps, "time_us")
        for kind in ("blocked", "runqueue")
    }
    return Part(_NOTHING, kinds["blocked"], kinds["runqueue"])


def _paused(run: Run, pauses: pd.DataFrame, steps: Sequence[int]) -> Part:
    """Pauses of the training thread; on a device job at most the time in which the device idles."""
    if pauses.empty:
        return Part({rank: np.zeros(len(steps)) for rank in run.ranks})
    if not run.is_device_job:
        lost = pauses_in_parts(pauses, run.steps, _ledger(run, steps), _PAUSED)
        return Part(_per_rank(lost, run.ranks, steps))
    inside, spans = {}, {}
    for rank in run.ranks:
        own = pauses[pauses["rank"].eq(rank)]
        start, length = own["start_us"].to_numpy(dtype="float64"), own["duration_us"].to_numpy(dtype="float64")
        rows = run.steps[run.steps["rank"].eq(rank)].set_index("step").loc[list(steps)]
        low = rows["start_us"].to_numpy()
        spans[rank] = union(start, start + length)
        inside[rank] = covered(spans[rank], low, low + rows["duration_us"].to_numpy())
    return Part(_within_idle(run, inside, steps), spans=spans)


def _within_idle(run: Run, times: PerRank, steps: Sequence[int]) -> PerRank:
    ledger = _ledger(run, steps)
    idle = ledger[ledger["part"].str.startswith("idle.")]
    per_device = idle.groupby(["rank", "step", "device"], dropna=False, as_index=False)["time_us"].sum()
    most = _per_rank(per_device.groupby(["rank", "step"], as_index=False)["time_us"].mean(), run.ranks, steps, "time_us")
    return {rank: np.minimum(time, most[rank]) for rank, time in times.items()}


def _ledger(run: Run, steps: Sequence[int]) -> pd.DataFrame:
    ledger = step_ledger(run)
    return ledger[ledger["step"].isin(list(steps))]


def _per_rank(rows: pd.DataFrame, ranks: Sequence[int], steps: Sequence[int], column: str = "lost_us") -> dict[int, Floats]:
    sums = rows.groupby(["rank", "step"])[column].sum()
    return {
        rank: sums.reindex(pd.MultiIndex.from_product([[rank], list(steps)]), fill_value=0.0).to_numpy(dtype="float64")
        for rank in ranks
    }


_MAKERS: Final[Mapping[str, Callable[[Run, Sequence[int]], Part | Unknown]]] = MappingProxyType(
    {"garbage": _garbage, "compiling": _compiling, "saving": _saving, "crowded_threads": _crowded_threads}
)
