"""When the host of a device job launched its optimizer and its backward pass, and how long the device worked on each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from perfnb.intervals import Intervals, contains, union
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.timeline import Timeline

if TYPE_CHECKING:
    from perfnb.whatif.model import StepModel
    from perfnb.whatif.rank_model import RankModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OPTIMIZER: Final = r"^Optimizer\.step"  # torch/optim/optimizer.py: profile_hook_step
BACKWARD: Final = r"^autograd::engine::evaluate_function"  # torch/csrc/autograd/engine.cpp
_NEEDS: Final = "a trace with host operators, recorded while torch's own optimizer and autograd run"

_known: WeakKeyDictionary[Run, dict[tuple[int, str], Intervals]] = WeakKeyDictionary()


def spans_named(run: Run, rank: int, name: str) -> Intervals:
    """Host time of a rank inside events whose name matches a pattern; kept for as long as the run lives."""
    kept = _known.setdefault(run, {})
    if (rank, name) not in kept:
        categories = run.host_ops["name"].cat
        pattern = re.compile(name)
        wanted = np.array([bool(pattern.search(str(each))) for each in categories.categories] + [False])
        rows = run.host_ops[wanted[categories.codes.to_numpy()] & run.host_ops["rank"].eq(rank).to_numpy()]
        start = rows["start_us"].to_numpy(dtype=np.float64)
        kept[rank, name] = union(start, start + rows["duration_us"].to_numpy(dtype=np.float64))
    return kept[rank, name]


def launched_in(model: StepModel, rank: RankModel, name: str) -> Bools | Unknown:
    """Of each device op of a rank's timeline, whether it was launched inside host events of that name."""
    if not isinstance(rank.graph, Timeline):
        return Unknown("the run has no trace to replay", "a trace of host and device") if rank.graph is None else rank.graph
    spans = spans_named(model.run, rank.rank, name)
    if not len(spans):
        return Unknown(f"the trace of rank {rank.rank} holds no event {name}", _NEEDS)
    inside: Bools = contains(spans, rank.graph.ops["launch_us"].to_numpy()) & rank.graph.ops["launched"].to_numpy(dtype=bool)
    return inside


def device_us(rank: RankModel, chosen: Bools) -> Floats:
    """Time of each steady step in which at least one of the chosen ops of a rank runs."""
    if not isinstance(rank.graph, Timeline):
        message = "a rank without a trace was asked for device time"
        raise AssertionError(message)  # noqa: TRY004 - a defect, not a wrong argument
    ops = rank.graph.ops[chosen]
    steps = len(rank.graph.edges_us) - 1
    total = np.zeros(steps)
    for step in ops["step"].unique():
        own = ops[ops["step"] == step]
        total[step] = union(own["start_us"], own["start_us"] + own["duration_us"]).total
    return total


def optimizer_us(model: StepModel, rank: RankModel) -> Floats:
    """Device time of the optimizer in each steady step; zeros where the trace does not tell it."""
    chosen = launched_in(model, rank, OPTIMIZER)
    return np.zeros(len(model.measured.step_us)) if isinstance(chosen, Unknown) else device_us(rank, chosen)
