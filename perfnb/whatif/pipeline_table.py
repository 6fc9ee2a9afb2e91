"""Recorded operations of a training in pipeline stages, as a table -> their replay, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.prediction import Unknown
from perfnb.whatif.pipeline_graph import (
    BACKWARD,
    COMPUTE,
    FORWARD,
    PARAMETERS,
    PEERS,
    TAIL,
    Operation,
    Pipeline,
    latest,
    pipeline,
)
from perfnb.whatif.pipeline_replay import PipelineReplay

Floats = NDArray[np.float64]

COLUMNS: Final = ("dp_rank", "stage", "step", "kind", "number", "start_us", "duration_us")
"""Of the table of operations, one row per operation."""

_PEER_KINDS: Final = tuple(kind for send, (receive, _) in PEERS.items() for kind in (send, receive))
_KNOWN: Final = {FORWARD, BACKWARD, PARAMETERS, *TAIL, *_PEER_KINDS}
_EXHAUSTIVE: Final = "a recording of every data-parallel rank and stage, each step with the same operations"


def pipeline_replay(operations: pd.DataFrame) -> PipelineReplay | Unknown:
    """The replay of recorded operations, or why there is none.

    Parameters
    ----------
    operations
        One row per operation: dp_rank, stage, step, kind, number (of the micro-batch, from 0), start_us, duration_us. Kinds are
        those of `perfnb.whatif.pipeline_graph`.

    Returns
    -------
    PipelineReplay or Unknown
        Times of two ranks are compared, so their clocks must agree.
    """
    table = operations[operations["duration_us"].notna()]
    if table.empty:
        return Unknown("no operation was recorded", _EXHAUSTIVE)
    table = table.assign(kind=table["kind"].astype(str))
    steps, ranks, stages = (tuple(sorted(int(each) for each in table[name].unique())) for name in ("step", "dp_rank", "stage"))
    recorded = _arrays(table, steps, ranks)
    if isinstance(recorded, Unknown):
        return recorded
    kinds = {stage: _counts(recorded[0], stage) for stage in stages}
    if sum(count for counts in kinds.values() for count in counts.values()) != len(recorded[0]):
        return Unknown("micro-batches are not numbered from 0 on without gaps", _EXHAUSTIVE)
    odd = _odd_counts(kinds)
    if odd is not None:
        return odd
    order = _order(table, stages)
    if isinstance(order, Unknown):
        return order
    graph = pipeline(order, kinds)
    lengths, delays = _lengths(graph, *recorded), _delays(graph, *recorded)
    ideal = _ideal(lengths)
    edges = table.assign(end_us=table["start_us"] + table["duration_us"]).groupby("step")
    whole = (edges["end_us"].max() - edges["start_us"].min()).reindex(list(steps)).to_numpy(dtype=np.float64)
    return PipelineReplay(graph, lengths, delays, ideal, steps, ranks, stages, whole)


def _arrays(
    table: pd.DataFrame, steps: tuple[int, ...], ranks: tuple[int, ...]
) -> tuple[dict[Operation, Floats], dict[Operation, Floats]] | Unknown:
    """Start and end of each operation as arrays (steps, ranks)."""
    starts: dict[Operation, Floats] = {}
    ends: dict[Operation, Floats] = {}
    row, column = np.searchsorted(steps, table["step"]), np.searchsorted(ranks, table["dp_rank"])
    start = table["start_us"].to_numpy(dtype=np.float64)
    end = start + table["duration_us"].to_numpy(dtype=np.float64)
    for key, places in table.groupby(["stage", "kind", "number"], observed=True).indices.items():
        own = Operation(*cast("tuple[int, str, int]", key))
        if len(places) != len(steps) * len(ranks):
            told = f"{own.kind} {own.number} of stage {own.stage}"
            reason = f"{told} was recorded {len(places)} times in {len(steps)} steps of {len(ranks)} ranks"
            return Unknown(reason, _EXHAUSTIVE)
        starts[own], ends[own] = np.full((len(steps), len(ranks)), np.nan), np.full((len(steps), len(ranks)), np.nan)
        starts[own][row[places], column[places]] = start[places]
        ends[own][row[places], column[places]] = end[places]
        if np.isnan(starts[own]).any():
            return Unknown(f"{own.kind} {own.number} of stage {own.stage} was recorded twice in a step", _EXHAUSTIVE)
    return starts, ends


def _counts(starts: Mapping[Operation, Floats], stage: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in starts:
        if each.stage == stage:
            found[each.kind] = max(found.get(each.kind, 0), each.number + 1)
    return found


def _odd_counts(kinds: Mapping[int, Mapping[str, int]]) -> Unknown | None:
    for stage, counts in kinds.items():
        strange = sorted(set(counts) - _KNOWN)
        if strange:
            return Unknown(
                f"stage {stage} has operations of a kind that is not modelled: {strange[0]}", ", ".join(sorted(_KNOWN))
            )
        computes = counts.get(FORWARD, 0)
        if not computes or counts.get(BACKWARD, 0) != computes:
            reason = f"stage {stage} has {computes} forward and {counts.get(BACKWARD, 0)} backward passes per step"
            return Unknown(reason, "a recording of one forward and one backward per micro-batch; virtual stages are not modelled")
        for kind in _PEER_KINDS:
            if counts.get(kind, 0) not in (0, computes):
                reason = f"stage {stage} has {counts[kind]} {kind} for {computes} micro-batches"
                return Unknown(reason, "a schedule with one send and one receive per micro-batch")
        for send, (receive, distance) in PEERS.items():
            if counts.get(send, 0) != kinds.get(stage + distance, {}).get(receive, 0):
                there = kinds.get(stage + distance, {}).get(receive, 0)
                reason = f"stage {stage} has {counts.get(send, 0)} {send}, stage {stage + distance} has {there} {receive}"
                return Unknown(reason, _EXHAUSTIVE)
    return None


def _order(table: pd.DataFrame, stages: tuple[int, ...]) -> dict[int, list[tuple[str, int]]] | Unknown:
    """Computes of each stage in turn: the same in every step and on every rank, else there is no one graph."""
    computes = table[table["kind"].isin([FORWARD, BACKWARD])].sort_values(["stage", "step", "dp_rank", "start_us"])
    found: dict[int, list[tuple[str, int]]] = {}
    for stage in stages:
        own = computes[computes["stage"].eq(stage)]
        turns = list(zip(own["kind"], own["number"].astype(int), strict=True))
        length = len(own[["kind", "number"]].drop_duplicates())
        first = turns[:length]
        if any(turns[start : start + length] != first for start in range(0, len(turns), length)):
            reason = f"stage {stage} runs its micro-batches in another order in some steps"
            return Unknown(reason, "a schedule that is the same in every step")
        found[stage] = first
    return found


def _lengths(graph: Pipeline, starts: Mapping[Operation, Floats], ends: Mapping[Operation, Floats]) -> dict[Operation, Floats]:
    """How long operations compute, or transfer once the last partner is there."""
    lengths: dict[Operation, Floats] = {}
    for call in graph.calls:
        latest = np.max([starts[member] for member in call.members], axis=0)
        if call.over_ranks:
            latest = latest.max(axis=1, keepdims=True)
        for member in call.members:
            lengths[member] = np.maximum(ends[member] - latest, 0.0)
    return lengths


def _delays(graph: Pipeline, starts: Mapping[Operation, Floats], ends: Mapping[Operation, Floats]) -> dict[Operation, Floats]:
    """How late the host starts each computing operation after all that it waits for.

    Operations that move data have none: they start late where they wait for partners that were not recorded, as in the job
    with one slow worker of StragglerAnalysis, in which other ranks' all-reduces of layer norms start up to 22 s late.
    """
    none = np.zeros(())
    delays = {each: np.broadcast_to(none, start.shape) for each, start in starts.items()}
    for each, start in starts.items():
        if each.kind in COMPUTE and graph.after[each]:
            delays[each] = np.maximum(start - latest([ends[other] for other in graph.after[each]]), 0.0)
    return delays


def _ideal(lengths: Mapping[Operation, Floats]) -> dict[str, float]:
    found: dict[str, list[Floats]] = {}
    for each, length in lengths.items():
        found.setdefault(each.kind, []).append(length)
    return {kind: float(np.mean(every) if kind in COMPUTE else np.median(every)) for kind, every in found.items()}
