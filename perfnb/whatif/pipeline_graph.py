"""The operations of a training in pipeline stages as a graph: what waits for what within a step, over all ranks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FORWARD: Final = "forward-compute"
BACKWARD: Final = "backward-compute"
PARAMETERS: Final = "params-all-gather"
GRADIENTS: Final = "grads-reduce-scatter"
EMBEDDING: Final = "embedding-grads-all-reduce"
CLIP: Final = "optimizer-clip-main-grad"
TAIL: Final = ("gc", "layernorm-grads-all-reduce", EMBEDDING, GRADIENTS, CLIP, "optimizer")
"""What follows the last compute of a step, one after another."""

COMPUTE: Final = (FORWARD, BACKWARD, "gc", "optimizer")
"""Kinds of operations that wait for nobody; all others move data."""

PEERS: Final = {
    "forward-send": ("forward-recv", 1),
    "backward-send": ("backward-recv", -1),
}
"""Kind that a send meets, and in which stage relative to its own."""

_ALL_DATA_PARALLEL: Final = (PARAMETERS, GRADIENTS)
_RECEIVES: Final = {"forward-recv": FORWARD, "backward-recv": BACKWARD}
_SENDS: Final = {"forward-send": FORWARD, "backward-send": BACKWARD}


class Operation(NamedTuple):
    """One operation of a stage in each step, on all data-parallel ranks."""

    stage: int
    kind: str
    number: int


class Call(NamedTuple):
    """Operations that go together: each ends its own transfer after the last of them started."""

    members: tuple[Operation, ...]
    over_ranks: bool  # whether the data-parallel ranks wait for one another too


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """What waits for what.

    Attributes
    ----------
    calls
        In an order in which each comes after those that it waits for.
    after
        Operations that each one waits for.
    """

    calls: tuple[Call, ...]
    after: Mapping[Operation, tuple[Operation, ...]]

    def step_us(self, lengths_us: Mapping[Operation, Floats], delays_us: Mapping[Operation, Floats] | None = None) -> Floats:
        """Duration of each step when operations take so long: computing, or transferring once all partners are there.

        Parameters
        ----------
        lengths_us
            One array (steps, data-parallel ranks) per operation.
        delays_us
            How long each operation starts after all that it waits for; by default it starts at once.
        """
        ends: dict[Operation, Floats] = {}
        last = np.zeros(())
        for call in self.calls:
            starts = [latest([ends[each] for each in self.after[member]]) for member in call.members]
            if delays_us is not None:
                starts = [start + delays_us[member] for start, member in zip(starts, call.members, strict=True)]
            start = latest(starts)
            if call.over_ranks:
                start = np.max(start, axis=1, keepdims=True) if start.ndim else start
            for member in call.members:
                ends[member] = start + lengths_us[member]
                last = np.maximum(last, ends[member])
        steps: Floats = np.max(last, axis=1)
        return steps


def pipeline(order: Mapping[int, Sequence[tuple[str, int]]], kinds: Mapping[int, Mapping[str, int]]) -> Pipeline:
    """The graph of a schedule.

    The rules are those of the whatif contract, section 6.3, after StragglerAnalysis (ByteDance, Apache-2.0; OSDI 2025).

    Parameters
    ----------
    order
        Of each stage, its forward and backward computes as (kind, number of the micro-batch), in turn.
    kinds
        Of each stage, kinds of operations with their number.
    """
    after: dict[Operation, list[Operation]] = {}
    for stage, counts in kinds.items():
        for kind, count in counts.items():
            for number in range(count):
                after[Operation(stage, kind, number)] = []
    for stage, computes in order.items():
        _order_stage(after, stage, [Operation(stage, kind, number) for kind, number in computes], kinds[stage])
    calls = _calls(after)
    place = {member: number for number, call in enumerate(calls) for member in call.members}
    waits = {number: {place[other] for member in call.members for other in after[member]} for number, call in enumerate(calls)}
    sequence = tuple(TopologicalSorter(waits).static_order())
    return Pipeline(tuple(calls[number] for number in sequence), {each: tuple(others) for each, others in after.items()})


def _order_stage(
    after: dict[Operation, list[Operation]], stage: int, computes: Sequence[Operation], counts: Mapping[str, int]
) -> None:
    """What the operations of one stage wait for within it."""
    for before, following in itertools.pairwise(computes):
        after[following].append(before)
    _order_transfers(after, stage, counts)
    first = next((place for place, each in enumerate(computes) if each.kind == BACKWARD), 0)
    if first > 1:
        for kind in ("backward-send", "backward-recv"):
            if counts.get(kind, 0):
                after[Operation(stage, kind, 0)].append(computes[first - 2])
    if counts.get(PARAMETERS, 0):
        after[computes[0]].append(Operation(stage, PARAMETERS, counts[PARAMETERS] - 1))
    previous = computes[-1]
    for kind in TAIL:
        for number in range(counts.get(kind, 0)):
            own = Operation(stage, kind, number)
            after[own].append(previous)
            previous = own


def _order_transfers(after: dict[Operation, list[Operation]], stage: int, counts: Mapping[str, int]) -> None:
    """Each kind of transfer in turn: sent once computed, received once the one before was computed; computed once received."""
    for kind in (*_RECEIVES, *_SENDS, PARAMETERS):
        for number in range(counts.get(kind, 0)):
            own = Operation(stage, kind, number)
            if number:
                after[own].append(own._replace(number=number - 1))
            if kind in _SENDS:
                after[own].append(own._replace(kind=_SENDS[kind]))
            elif kind in _RECEIVES:
                after[own._replace(kind=_RECEIVES[kind])].append(own)
                if number:
                    after[own].append(Operation(stage, _RECEIVES[kind], number - 1))


def _calls(after: Mapping[Operation, list[Operation]]) -> list[Call]:
    """Operations in the groups in which they wait for one another."""
    calls: list[Call] = []
    of_all: dict[tuple[str, int], list[Operation]] = {}
    for each in after:
        if each.kind in PEERS:
            kind, distance = PEERS[each.kind]
            calls.append(Call((each, Operation(each.stage + distance, kind, each.number)), over_ranks=False))
        elif each.kind in (EMBEDDING, CLIP):
            of_all.setdefault((each.kind, each.number), []).append(each)
        elif each.kind not in _RECEIVES:
            calls.append(Call((each,), over_ranks=each.kind in _ALL_DATA_PARALLEL))
    calls += [Call(tuple(members), over_ranks=kind == CLIP) for (kind, _), members in of_all.items()]
    return calls


def latest(times: Sequence[Floats]) -> Floats:
    """The latest of some times, element by element; 0 for none."""
    found: Floats = np.zeros(())
    for each in times:
        found = np.maximum(found, each)
    return found
