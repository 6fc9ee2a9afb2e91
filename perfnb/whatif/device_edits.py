"""Edits of a device job's trace, one per knob, and the traces once all of them are in; their order does not matter.

Factors of device ops multiply, what one edit takes away another cannot take again, and host time that two name goes once. Not
validated on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from perfnb.intervals import EMPTY, Intervals, joined
from perfnb.run import Run
from perfnb.whatif.segments import Program, compile_timeline
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.timeline_edits import Selector, remove, unblock
from perfnb.whatif.uncertainty import Estimate

if TYPE_CHECKING:
    from perfnb.whatif.rank_model import RankModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MOST_KEPT: Final = 64  # programs of a run: a program holds a few numbers per wait of the host
_programs: WeakKeyDictionary[Run, dict[Any, Program]] = WeakKeyDictionary()
TO_DEVICE: Final = Selector("copy", "HtoD")
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class DeviceEdit:
    """What a change does to the traces of a device job; every mapping is by rank.

    Attributes
    ----------
    key
        What tells it from every other edit of this run: equal keys mean equal edits.
    removed
        Host time that goes, with all that is called there.
    squeezed
        Host time that goes, while what it launches stays.
    factors, least_factors, most_factors
        Of each device op, in the order of `Timeline.ops`: how many times as long it takes, and at the ends of its interval.
    is_unblocked
        Whether copies to the device no longer hold up the host.
    largest_gap_us
        Longest time between two ops of one stream that the device alone leaves; None: as recorded.
    blend
        Name of the quantity that says how much of the edit holds, from 0 to 1; None: all of it.
    end
        Name of the quantity that is -1 at the least factors, 1 at the most; None where the factors are exact.
    """

    key: str
    removed: Mapping[int, Intervals] = field(default_factory=lambda: _NOTHING)
    squeezed: Mapping[int, Intervals] = field(default_factory=lambda: _NOTHING)
    factors: Mapping[int, Floats] = field(default_factory=lambda: _NOTHING)
    least_factors: Mapping[int, Floats] = field(default_factory=lambda: _NOTHING)
    most_factors: Mapping[int, Floats] = field(default_factory=lambda: _NOTHING)
    is_unblocked: bool = False
    largest_gap_us: float | None = None
    blend: str | None = None
    end: str | None = None


END: Final = Estimate(0.0, -1.0, 1.0)
"""The middle, least and most of a factor's interval, as a quantity of the model."""


def factor_edit(key: str, chosen: Mapping[int, Bools], factor: Estimate) -> DeviceEdit:
    """Device ops of each rank that take so many times as long; `with_device_edit` needs `END` beside it unless that is exact."""
    sides = [
        MappingProxyType({rank: np.where(own, times, 1.0) for rank, own in chosen.items()})
        for times in (factor.value, factor.low, factor.high)
    ]
    return DeviceEdit(
        key,
        factors=sides[0],
        least_factors=sides[1],
        most_factors=sides[2],
        end=None if factor.is_exact else f"end of {key}",
    )


def blends(edits: Mapping[str, DeviceEdit]) -> tuple[str, ...]:
    """Names of the quantities that say how much of an edit holds."""
    return tuple(sorted({edit.blend for edit in edits.values() if edit.blend is not None}))


def held_ends(edits: Mapping[str, DeviceEdit], values: Mapping[str, float]) -> frozenset[str]:
    """Which factors stand at an end of their interval."""
    ends = {edit.end: values.get(edit.end, 0.0) for edit in edits.values() if edit.end is not None}
    return frozenset(f"{name} {'least' if value < 0 else 'most'}" for name, value in ends.items() if value != 0.0)


def edited_program(run: Run, rank: RankModel, edits: Mapping[str, DeviceEdit], held: frozenset[str]) -> Program:
    """The replay of a rank after those edits that hold; kept for as long as the run lives.

    Parameters
    ----------
    run
        The run of the rank.
    rank
        A rank with a trace that can be replayed.
    edits
        By knob.
    held
        Blends in effect, and factors at an end of their interval.
    """
    chosen = [edit for _, edit in sorted(edits.items()) if edit.blend is None or edit.blend in held]
    if not isinstance(rank.graph, Timeline) or not isinstance(rank.program, Program):
        message = "a rank without a trace to replay was edited"
        raise AssertionError(message)  # noqa: TRY004 - a defect, not a wrong argument
    if not chosen:
        return rank.program
    key = (rank.rank, tuple(sorted((edit.key, *(f"{edit.end} {side}" in held for side in ("least", "most"))) for edit in chosen)))
    kept = _programs.setdefault(run, {})
    if key not in kept:
        while len(kept) >= _MOST_KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = compile_timeline(_edited(rank.graph, rank.rank, chosen, held))
    return kept[key]


def _edited(graph: Timeline, rank: int, edits: Sequence[DeviceEdit], held: frozenset[str]) -> Timeline:
    factor = np.ones(len(graph.ops))
    removed, squeezed, gaps = EMPTY, EMPTY, []
    for edit in edits:
        factors = edit.factors
        if f"{edit.end} least" in held:
            factors = edit.least_factors
        elif f"{edit.end} most" in held:
            factors = edit.most_factors
        factor = factor * factors.get(rank, 1.0)
        removed, squeezed = joined(removed, edit.removed.get(rank, EMPTY)), joined(squeezed, edit.squeezed.get(rank, EMPTY))
        gaps += [] if edit.largest_gap_us is None else [edit.largest_gap_us]
    ops = graph.ops
    if not np.all(factor == 1.0):
        ops = ops.assign(duration_us=ops["duration_us"] * factor)
    if gaps:
        ops = ops.assign(gap_us=ops["gap_us"].clip(upper=min(gaps)))
    graph = replace(graph, ops=ops)
    if any(edit.is_unblocked for edit in edits):
        graph = unblock(graph, TO_DEVICE)
    if len(removed):
        graph = remove(graph, Selector("host", within=removed))
    return _squeezed(graph, removed, squeezed)


def _squeezed(graph: Timeline, removed: Intervals, squeezed: Intervals) -> Timeline:
    """Without further host time, whose launches stay; what is removed already does not go again."""
    if not len(squeezed):
        return graph
    every = joined(removed, squeezed)
    cuts = tuple((float(low), float(high), float(low - high)) for low, high in zip(every.start, every.end, strict=True))
    return replace(graph, host_edits=cuts)
