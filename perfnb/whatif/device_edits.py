"""Edits of a device job's trace, one per knob, and the traces once all of them are in; their order does not matter.

Factors of device ops multiply, what one edit takes away another cannot take again, and host time that two name goes once. Not
validated on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from perfnb.intervals import EMPTY, Intervals, joined
from perfnb.whatif.segments import Program, compile_timeline
from perfnb.whatif.timeline import Timeline
from perfnb.whatif.timeline_edits import Selector, remove

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel
    from perfnb.whatif.rank_model import RankModel

Floats = NDArray[np.float64]

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class DeviceEdit:
    """What a change does to the traces of a device job; every mapping is by rank.

    Attributes
    ----------
    removed
        Host time that goes, with all that is called there.
    squeezed
        Host time that goes, while what it launches stays.
    factors
        Of each device op, in the order of `Timeline.ops`: how many times as long it takes.
    largest_gap_us
        Longest time between two ops of one stream that the device alone leaves; None: as recorded.
    blend
        Name of the quantity that says how much of the edit holds, from 0 to 1; None: all of it.
    """

    removed: Mapping[int, Intervals] = field(default_factory=lambda: _NOTHING)
    squeezed: Mapping[int, Intervals] = field(default_factory=lambda: _NOTHING)
    factors: Mapping[int, Floats] = field(default_factory=lambda: _NOTHING)
    largest_gap_us: float | None = None
    blend: str | None = None


def blends(model: StepModel) -> tuple[str, ...]:
    """Names of the quantities that say how much of an edit holds."""
    return tuple(sorted({edit.blend for edit in model.device_edits.values() if edit.blend is not None}))


def edited_programs(model: StepModel) -> Mapping[frozenset[str], Mapping[int, Program]]:
    """The replay of each rank after the model's edits, for each set of those edits of which only a share may hold."""
    names = blends(model)
    every = chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))
    made = {}
    for chosen in map(frozenset, every):
        edits = [edit for _, edit in sorted(model.device_edits.items()) if edit.blend is None or edit.blend in chosen]
        made[chosen] = MappingProxyType({rank.rank: _program(rank, edits) for rank in model.measured.ranks})
    return MappingProxyType(made)


def _program(rank: RankModel, edits: Sequence[DeviceEdit]) -> Program:
    if not isinstance(rank.graph, Timeline) or not isinstance(rank.program, Program):
        message = "a rank without a trace to replay was edited"
        raise AssertionError(message)  # noqa: TRY004 - a defect, not a wrong argument
    if not edits:
        return rank.program
    return compile_timeline(_edited(rank.graph, rank.rank, edits))


def _edited(graph: Timeline, rank: int, edits: Sequence[DeviceEdit]) -> Timeline:
    factor = np.ones(len(graph.ops))
    removed, squeezed, gaps = EMPTY, EMPTY, []
    for edit in edits:
        factor = factor * edit.factors.get(rank, 1.0)
        removed, squeezed = joined(removed, edit.removed.get(rank, EMPTY)), joined(squeezed, edit.squeezed.get(rank, EMPTY))
        gaps += [] if edit.largest_gap_us is None else [edit.largest_gap_us]
    ops = graph.ops
    if not np.all(factor == 1.0):
        ops = ops.assign(duration_us=ops["duration_us"] * factor)
    if gaps:
        shortest = min(gaps)
        ops = ops.assign(lag_us=ops["lag_us"].clip(upper=shortest), gap_us=ops["gap_us"].clip(upper=shortest))
    graph = replace(graph, ops=ops)
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
