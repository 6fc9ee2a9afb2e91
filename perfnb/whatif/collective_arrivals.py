"""When the gradients of a job arrive within backward, as its trace tells: their sizes and their order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Final, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.gradient_syncs import FORWARD
from perfnb.categories import per_text
from perfnb.launches import launches
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.collective import Gradient

Floats = NDArray[np.float64]
Clock = Callable[[float, Floats], tuple[float, Floats]]
"""When backward began and when gradients were there, by the host's moments of both."""

ACCUMULATE: Final = "torch::autograd::AccumulateGrad"  # torch/csrc/autograd/functions/accumulate_grad.cpp
EVALUATE: Final = "autograd::engine::evaluate_function: "  # torch/csrc/autograd/engine.cpp names each node's range so
_BYTES: Final = {"float": 4, "double": 8, "c10::Half": 2, "c10::BFloat16": 2}  # as the profiler names them
_NEEDS: Final = "a trace with shapes of a job under DDP: record(trace=5), or torch.profiler.profile(record_shapes=True)"


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Gradients in the order in which they arrive.

    Attributes
    ----------
    gradients
        Their sizes and types.
    shares
        When each is there: 0 at the start of backward, 1 when the last one is there.
    span_us
        Median time from the start of backward to the last of them, on the clock of the trace.
    passes
        Number of backward passes that were seen.
    """

    gradients: tuple[Gradient, ...]
    shares: Floats
    span_us: float
    passes: int


def arrivals(run: Run) -> Arrivals | Unknown:
    """Gradients of a run and when they arrive: the median over passes and ranks, or why it is not known.

    On a device a gradient arrives when the compute that was launched before its accumulation has ended; not validated on a GPU.

    Parameters
    ----------
    run
        A run with host ops of backward; of a device job with its device ops too.
    """
    host = run.host_ops
    found = host[per_text(host["name"], ACCUMULATE.__eq__)] if len(host) else host
    if found.empty:
        return Unknown(f"the run has no {ACCUMULATE}, so when gradients arrive is not known", _NEEDS)
    seen: list[_Pass] = []
    for rank, own in found.groupby("rank"):
        clock = _device_clock(run, int(cast("int", rank))) if run.is_device_job else _host_clock
        seen += _passes(host[host["rank"].eq(rank)], own.sort_values("start_us"), clock)
    if not seen:
        return Unknown("the trace holds no whole backward pass", _NEEDS)
    orders = Counter(each.order for each in seen)
    order, count = orders.most_common(1)[0]
    if count * 2 <= len(seen):
        return Unknown("gradients arrive in another order in each backward pass", "a model whose graph does not change")
    gradients = tuple(_gradient(shape, dtype) for shape, dtype in order)
    if any(each is None for each in gradients):
        return Unknown("the trace has no shapes of gradients", _NEEDS)
    alike = [each for each in seen if each.order == order]
    shares = np.median([each.shares for each in alike], axis=0)
    span = float(np.median([each.span_us for each in alike]))
    return Arrivals(tuple(each for each in gradients if each is not None), shares, span, count)


class _Pass(NamedTuple):
    """One backward pass of one rank: shapes and types of its gradients in turn, when each is there, and how long it takes."""

    order: tuple[tuple[str, str], ...]
    shares: Floats
    span_us: float


def _passes(host: pd.DataFrame, own: pd.DataFrame, clock: Clock) -> list[_Pass]:
    """Backward passes of one rank."""
    forwards = np.sort(host.loc[per_text(host["name"], FORWARD.__eq__), "start_us"].to_numpy())
    nodes = np.sort(host.loc[per_text(host["name"], lambda name: name.startswith(EVALUATE)), "start_us"].to_numpy())
    start, end = own["start_us"].to_numpy(), (own["start_us"] + own["duration_us"]).to_numpy()
    shapes, dtypes = own["input_shapes"].astype(object).to_numpy(), own["input_types"].astype(object).to_numpy()
    of_pass = np.searchsorted(forwards, start, side="right")
    found = []
    for number, rows in groupby(range(len(start)), key=lambda row: of_pass[row]):
        chosen = list(rows)
        if number == 0 and len(forwards):  # the trace began inside of it
            continue
        after = forwards[number - 1] if len(forwards) else -np.inf
        node = np.searchsorted(nodes, after)
        begin = float(min([start[chosen[0]], *nodes[node : node + 1]]))
        first, there = clock(begin, end[chosen])
        span = float(there.max()) - first
        if span > 0:
            order = tuple((str(shapes[row]), str(dtypes[row])) for row in chosen)
            found.append(_Pass(order, (there - first) / span, span))
    return found


def _host_clock(first_us: float, ends_us: Floats) -> tuple[float, Floats]:
    """On a CPU what an operator computes is there when it ends."""
    return first_us, ends_us


def _device_clock(run: Run, rank: int) -> Clock:
    """From moments of a rank's host to those at which its device has computed what was launched until then."""
    ops = run.device_ops.assign(launch_us=launches(run)["call_start_us"])
    ops = ops[ops["rank"].eq(rank) & ops["kind"].eq("compute") & ops["launch_us"].notna()].sort_values("launch_us")
    launch, start = ops["launch_us"].to_numpy(), ops["start_us"].to_numpy()
    done = np.maximum.accumulate((ops["start_us"] + ops["duration_us"]).to_numpy())

    def clock(first_us: float, ends_us: Floats) -> tuple[float, Floats]:
        first = int(np.searchsorted(launch, first_us))
        last = np.searchsorted(launch, ends_us, side="right") - 1
        if first >= len(launch) or last.min() < first:  # nothing was launched in between
            return 0.0, np.zeros(len(ends_us))
        return float(start[first]), done[last]

    return clock


def _gradient(shape: str, dtype: str) -> Gradient | None:
    """One gradient from the inputs of its AccumulateGrad: `[[512,10]]` and `["float"]`."""
    try:
        sizes, names = json.loads(shape), json.loads(dtype)
        name = names[0]
        return Gradient(prod(int(each) for each in sizes[0]) * _BYTES[name], name)
    except (ValueError, TypeError, IndexError, KeyError):
        return None
