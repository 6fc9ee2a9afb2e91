"""What a traced rank did as a graph: device ops with their launches, host calls that wait for them, loader waits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.intervals import union
from perfnb.launches import launches
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.blocking_calls import Block, blocking_copies, in_turn, loader_waits, synchronizations
from perfnb.whatif.inferred_edges import inferred_edges

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LARGEST_UNLAUNCHED_SHARE: Final = 0.05  # whatif contract, section 3
LARGEST_UNEXPLAINED_SHARE: Final = 0.02
LARGEST_THREAD_OVERLAP_SHARE: Final = 0.01
LARGEST_NEGATIVE_DELAY_SHARE: Final = 0.01
_FALLBACK_LAG_US: Final = 5.0  # detectors contract, section 1.3: where no op of the trace met an idle stream
_NEEDS: Final = "CPU and CUDA activities recorded from one moment on, with prof.step() once per iteration"


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """One rank's graph of host and device work over consecutive steps.

    Attributes
    ----------
    ops
        One row per device op, in the order of the launches: label (row in `run.device_ops`), step, stream (0, 1, ...), kind,
        name, start_us, end_us,
        duration_us, launch_us (start of its call), lag_us (least time from there), gap_us (least time since the previous op
        of the stream).
    edges
        One row per further dependency: source and target (labels of ops), gap_us (least time between them).
    blocks
        Host calls that wait, by start.
    edges_us
        Where the steps start, and where the last one's successor would.
    earlier_end_us
        Per stream, when the work ends that was launched before the first step.
    unexplained_share
        Share of the time in lags that nothing recorded explains: there a dependency may be missing.
    host_edits
        Changes of the host's own time: (start_us, end_us, added_us), spread evenly from start to end.
    """

    ops: pd.DataFrame
    edges: pd.DataFrame
    blocks: tuple[Block, ...]
    edges_us: Floats
    earlier_end_us: Floats
    unexplained_share: float
    host_edits: tuple[tuple[float, float, float], ...] = ()


def build_timeline(run: Run, rank: int, steps: pd.DataFrame) -> Timeline | Unknown:
    """The graph of one rank over the given steps, or why none can be built.

    Parameters
    ----------
    run
        A run with host and device ops.
    rank
        Whose graph.
    steps
        Consecutive rows of `run.steps` of that rank.

    Returns
    -------
    Timeline or Unknown
        Replayed without a change, it gives the recorded steps.
    """
    if not run.is_device_job or run.host_ops.empty or steps.empty:
        return Unknown("the trace lacks device ops, host ops or steps, so work of host and device cannot be joined", _NEEDS)
    host = run.host_ops[run.host_ops["rank"] == rank]
    edges_us = step_edges(steps)
    ops = _launched(run, rank, edges_us)
    refused = _refusal(ops, edges_us)
    if refused is not None:
        return refused
    earlier_end = _earlier_ends(ops, edges_us[0])
    ops = ops[(ops["launch_us"] >= edges_us[0]) & (ops["launch_us"] < edges_us[-1])].reset_index(drop=True)
    ops = _measured_limits(ops.assign(step=np.searchsorted(edges_us, ops["launch_us"], side="right") - 1), earlier_end)
    last_us = float((steps["start_us"] + steps["duration_us"]).iloc[-1])  # the profiler's own sync follows the last step
    calls = host[host["category"].eq("runtime") & host["start_us"].between(edges_us[0], last_us, inclusive="left")]
    copies, pageable = blocking_copies(ops)
    blocks = in_turn([*copies, *synchronizations(calls, host, ops, earlier_end), *loader_waits(host, edges_us[0], last_us)])
    overlap = _thread_overlap_share(calls, ops, edges_us)
    if overlap > LARGEST_THREAD_OVERLAP_SHARE:
        reason = f"two host threads launch at once for {overlap:.1%} of the time, so they form no single line of work"
        return Unknown(reason, "a trace of one launching thread at a time (main thread and its backward)")
    idle = ops["is_idle"] & ops["launched"] & ~ops["in_graph"] & ~pageable
    typical_lag = _median(ops.loc[idle & ~ops["is_graph"], "lag_us"], _FALLBACK_LAG_US)
    typical_gap = _median(ops.loc[~ops["is_idle"] & ops["launched"] & ~ops["in_graph"], "gap_us"], 0.0)
    inferred = inferred_edges(ops, typical_lag)
    unexplained = inferred.unexplained_us / float(edges_us[-1] - edges_us[0])
    if unexplained > LARGEST_UNEXPLAINED_SHARE:
        reason = f"device ops wait for {unexplained:.1%} of the time for something that the trace does not tell"
        return Unknown(reason, "a trace with the profiler's synchronization events, of a CUDA version that records them")
    edges = _edges(ops, inferred.edges, inferred.held, typical_gap)
    settled = _settled_limits(ops, inferred.held, pageable, typical_lag, typical_gap)
    return Timeline(settled, edges, blocks, edges_us, earlier_end, unexplained)


def step_edges(steps: pd.DataFrame) -> Floats:
    """Starts of consecutive steps, and where the one after the last would start: a median pause after its end."""
    start, length = steps["start_us"].to_numpy(), steps["duration_us"].to_numpy()
    pause = _median(pd.Series(start[1:] - start[:-1] - length[:-1]), 0.0)
    return np.append(start, start[-1] + length[-1] + pause)


def _launched(run: Run, rank: int, edges_us: Floats) -> pd.DataFrame:
    """Device ops in the order of their launches; one without a launch follows the op before it in its stream."""
    one = replace(
        run, host_ops=run.host_ops[run.host_ops["rank"] == rank], device_ops=run.device_ops[run.device_ops["rank"] == rank]
    )
    calls = launches(one)
    ops = one.device_ops[["stream", "device", "kind", "name", "start_us", "duration_us"]]
    ops = ops.assign(
        stream_number=ops["stream"],
        stream=ops.groupby(["device", "stream"], dropna=False).ngroup(),
        end_us=ops["start_us"] + ops["duration_us"],
        launch_us=calls["call_start_us"].to_numpy(dtype=float),
        call_end_us=calls["call_end_us"].to_numpy(dtype=float),
        call=calls["call"].to_numpy(),
        label=ops.index,
        launched=calls["call_start_us"].notna().to_numpy(),
    ).sort_values("start_us", kind="stable")
    before = ops.groupby("stream")["launch_us"].ffill()
    first = np.where(ops["start_us"] >= edges_us[0], edges_us[0], -np.inf)
    ops = ops.assign(launch_us=before.where(before.notna(), first))
    ops = ops.assign(
        is_graph=ops["launched"] & ops.duplicated("call", keep=False), in_graph=ops["launched"] & ops.duplicated("call")
    )
    return ops.sort_values(["launch_us", "start_us"], kind="stable").reset_index(drop=True)


def _refusal(ops: pd.DataFrame, edges_us: Floats) -> Unknown | None:
    within = ops[(ops["start_us"] >= edges_us[0]) & (ops["start_us"] < edges_us[-1])]
    if within.empty:
        return Unknown("no device op runs in the steps", _NEEDS)
    unlaunched = float((~within["launched"]).mean())
    if unlaunched > LARGEST_UNLAUNCHED_SHARE:
        reason = f"{unlaunched:.0%} of the {len(within):,} device ops in the steps have no launch call in the trace"
        return Unknown(reason, _NEEDS)
    negative = float((within["start_us"] < within["launch_us"])[within["launched"]].mean())
    if negative > LARGEST_NEGATIVE_DELAY_SHARE:
        return Unknown(
            f"{negative:.0%} of the device ops start before their launch: the clocks of host and device disagree", _NEEDS
        )
    return None


def _thread_overlap_share(calls: pd.DataFrame, ops: pd.DataFrame, edges_us: Floats) -> float:
    rows = calls.loc[calls.index.intersection(ops.loc[ops["launched"], "call"].unique())]
    apart = sum(
        union(own["start_us"], own["start_us"] + own["duration_us"]).total
        for _, own in rows.groupby(["process", "thread"], observed=True)
    )
    together = union(rows["start_us"], rows["start_us"] + rows["duration_us"]).total
    return (apart - together) / float(edges_us[-1] - edges_us[0])


def _earlier_ends(ops: pd.DataFrame, low: float) -> Floats:
    ends = ops[ops["launch_us"] < low].groupby("stream")["end_us"].max()
    return ends.reindex(range(int(ops["stream"].max()) + 1)).fillna(-np.inf).to_numpy()


def _measured_limits(ops: pd.DataFrame, earlier_end_us: Floats) -> pd.DataFrame:
    """With the recorded lag and gap of each op, and whether its stream was idle at the call."""
    before = ops.groupby("stream")["end_us"].shift()
    before = before.where(before.notna(), earlier_end_us[ops["stream"].to_numpy()])
    return ops.assign(
        before_us=before,
        is_idle=(before <= ops["launch_us"]) & ops["launched"],
        lag_us=ops["start_us"] - ops["launch_us"],
        gap_us=ops["start_us"] - before,
    )


def _settled_limits(ops: pd.DataFrame, held: Bools, pageable: Bools, typical_lag: float, typical_gap: float) -> pd.DataFrame:
    """With lag and gap such that at least one of them, or an edge, gives the recorded start exactly."""
    lag, gap, idle = ops["lag_us"].to_numpy(), ops["gap_us"].to_numpy(), ops["is_idle"].to_numpy()
    launched, first = ops["launched"].to_numpy(), np.isinf(ops["before_us"].to_numpy())
    drained = ops["start_us"].to_numpy() - np.maximum(ops["launch_us"].to_numpy(), ops["before_us"].to_numpy())
    new_lag = np.where(idle & ~held, lag, np.minimum(lag, typical_lag))
    new_gap = np.where(idle | held, np.minimum(gap, typical_gap), gap)
    new_lag, new_gap = np.where(pageable, drained, new_lag), np.where(pageable, drained, new_gap)
    new_lag = np.where(launched, new_lag, np.where(first, lag, -np.inf))
    new_gap = np.where(first, 0.0, new_gap)
    in_graph = ops["in_graph"].to_numpy()
    return ops.assign(lag_us=np.where(in_graph, -np.inf, new_lag), gap_us=np.where(in_graph, -np.inf, new_gap))


def _edges(ops: pd.DataFrame, pairs: list[tuple[int, int]], held: Bools, typical_gap: float) -> pd.DataFrame:
    start, end = ops["start_us"].to_numpy(), ops["end_us"].to_numpy()
    rows = []
    for source, target in pairs:
        wait = float(start[target] - end[source])
        rows.append((source, target, wait if held[target] else min(wait, typical_gap)))
    first_of_call: dict[object, int] = {}
    for row in np.flatnonzero(ops["is_graph"].to_numpy()):
        first = first_of_call.setdefault(ops["call"].iloc[row], int(row))
        if first != row:
            rows.append((first, int(row), float(start[row] - end[first])))
    return pd.DataFrame(rows, columns=["source", "target", "gap_us"])


def _median(values: pd.Series, otherwise: float) -> float:
    return float(values.median()) if len(values) else otherwise
