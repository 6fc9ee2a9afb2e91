"""Phases of each step as a trace shows them: which part of the step's thread is data, forward, backward, ..."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import per_text
from perfnb.intervals import EMPTY, Intervals, clip, joined, subtract, union
from perfnb.read.kineto.classify import LOADER_PATTERN

PHASES: Final = ("data", "forward", "backward", "communication", "optimizer", "other")
_BACKWARD: Final = "autograd::engine::evaluate_function"  # torch/csrc/autograd/engine.cpp
_OPTIMIZER: Final = "Optimizer."  # torch/optim/optimizer.py: Optimizer.step#NAME.step, Optimizer.zero_grad#...
_DISTRIBUTED_FORWARD: Final = "DistributedDataParallel.forward"
_LIBRARY_RANGE: Final = r"^gloo:"


def phases(host: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Wall time of each phase of each step of one rank; columns of table phases, cpu, runqueue and blocked are NA.

    A trace holds no CPU clock, so only wall time is known. The phases are disjoint and sum to the step:

    - data: inside `enumerate(DataLoader)...__next__` on the step's thread;
    - optimizer: inside an `Optimizer.` range;
    - backward: from the first to the last backward function, ranges of other phases left out;
    - forward: from the first to the last operator that made a node of this step's backward;
    - communication: inside a range of a host collective while the step's thread runs no operator;
    - other: the rest. Where a step has no backward, forward, backward and other are NA: they cannot be told apart.

    Parameters
    ----------
    host
        Host rows of one rank, sorted by start, with the columns of table host_ops.
    steps
        Steps of the same rank.

    Returns
    -------
    pandas.DataFrame
        One row per (rank, step, phase).
    """
    if steps.empty or host.empty:
        return pd.DataFrame(columns=["rank", "step", "phase", "wall_us"])
    process, thread = _thread_of_steps(host, steps)
    own = host[host["process"].eq(process)]
    name = own["name"]
    on_thread = own["thread"].eq(thread).to_numpy()
    chosen = {
        "data": per_text(name, re.compile(LOADER_PATTERN).search) & on_thread,
        "optimizer": per_text(name, lambda text: text.startswith(_OPTIMIZER)) & on_thread,
        "library": per_text(name, re.compile(_LIBRARY_RANGE).search),
        "backward": per_text(name, lambda text: text.startswith(_BACKWARD)),
        "distributed": per_text(name, lambda text: text.startswith(_DISTRIBUTED_FORWARD)) & on_thread,
        "operator": per_text(own["category"], "operator".__eq__) & on_thread,
    }
    start = own["start_us"].to_numpy()
    end = start + own["duration_us"].to_numpy()
    spans = {key: union(start[rows], end[rows]) for key, rows in chosen.items()}
    sequence = own["sequence"].to_numpy(dtype="float64", na_value=np.nan)
    rows = []
    for rank, step, low, length in zip(steps["rank"], steps["step"], steps["start_us"], steps["duration_us"], strict=True):
        within = {key: clip(each, low, low + length) for key, each in spans.items()}
        inside = np.flatnonzero((start >= low) & (start < low + length))
        walls = _walls(within, _forward(inside, chosen, start, end, sequence), low, low + length)
        rows += [(rank, step, phase, wall) for phase, wall in walls.items()]
    return pd.DataFrame(rows, columns=["rank", "step", "phase", "wall_us"])


def _walls(within: dict[str, Intervals], forward: Intervals, low: float, high: float) -> dict[str, float]:
    """Wall time of the phases in [low, high): each takes what the ones before it left."""
    whole = Intervals(np.array([low]), np.array([high]))
    trained = len(within["backward"]) > 0
    waiting = subtract(within["library"], within["operator"])
    taken, walls = EMPTY, {}
    for phase, spans in (
        ("data", within["data"]),
        ("optimizer", within["optimizer"]),
        ("communication", waiting),
        ("backward", _hull(within["backward"])),
        ("forward", joined(forward, clip(within["distributed"], low, high))),
        ("other", whole),
    ):
        own = subtract(clip(spans, low, high), taken)
        walls[phase] = own.total if trained or phase in ("data", "optimizer", "communication") else float("nan")
        taken = joined(taken, own)
    return walls


def _forward(
    inside: NDArray[np.intp],
    chosen: dict[str, NDArray[np.bool_]],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    sequence: NDArray[np.float64],
) -> Intervals:
    """From the first to the last operator of a step that made a node of its backward.

    Operators carry the number that the next node will get, so of those with one number only the last one made the node.
    """
    numbered = inside[~np.isnan(sequence[inside])]
    backward = numbered[chosen["backward"][numbered]]
    makers = numbered[chosen["operator"][numbered] & ~chosen["backward"][numbered]]
    if not len(backward) or not len(makers):
        return EMPTY
    makers = makers[end[makers] <= start[backward].max()]
    makers = makers[np.isin(sequence[makers], sequence[backward]) & (start[makers] < start[backward].min())]
    if not len(makers):
        return EMPTY
    order = np.lexsort((end[makers], sequence[makers]))
    last = np.concatenate([sequence[makers][order][1:] != sequence[makers][order][:-1], [True]])
    makers = makers[order][last]
    return union([start[makers].min()], [end[makers].max()])


def _hull(spans: Intervals) -> Intervals:
    return union(spans.start[:1], spans.end[-1:])


def _thread_of_steps(host: pd.DataFrame, steps: pd.DataFrame) -> tuple[str, str]:
    """Process and thread that ran the steps: that of the rows which start with a step, else of the loader waits."""
    at_start = host[host["start_us"].isin(steps["start_us"]) & host["category"].eq("annotation")]
    rows = at_start if len(at_start) else host
    counts = rows.groupby(["process", "thread"], observed=True, as_index=False).size()
    most = counts.sort_values("size", kind="stable").iloc[-1]
    return str(most["process"]), str(most["thread"])
