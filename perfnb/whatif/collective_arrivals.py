"""When the gradients of a job arrive within backward, as its trace tells: their sizes and their order."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.analyses.gradient_syncs import FORWARD
from perfnb.categories import per_text
from perfnb.prediction import Unknown
from perfnb.run import Run
from perfnb.whatif.collective import Gradient

Floats = NDArray[np.float64]

ACCUMULATE: Final = "torch::autograd::AccumulateGrad"  # torch/csrc/autograd/functions/accumulate_grad.cpp
EVALUATE: Final = "autograd::engine::evaluate_function: "  # torch/csrc/autograd/engine.cpp names each node's range so
_BYTES: Final = {"float": 4, "double": 8, "c10::Half": 2, "c10::BFloat16": 2}
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
    passes
        Number of backward passes that were seen.
    """

    gradients: tuple[Gradient, ...]
    shares: Floats
    passes: int


def arrivals(run: Run) -> Arrivals | Unknown:
    """Gradients of a run and when they arrive: the median over passes and ranks, or why it is not known.

    Parameters
    ----------
    run
        A CPU job with host ops; on a device, gradients arrive when its kernels end.
    """
    host = run.host_ops
    found = host[per_text(host["name"], ACCUMULATE.__eq__)] if len(host) else host
    if found.empty:
        return Unknown(f"the run has no {ACCUMULATE}, so when gradients arrive is not known", _NEEDS)
    seen: list[tuple[tuple[tuple[str, str], ...], Floats]] = []
    for rank, own in found.groupby("rank"):
        seen += _passes(host[host["rank"].eq(rank)], own.sort_values("start_us"))
    orders = Counter(order for order, _ in seen)
    order, count = orders.most_common(1)[0]
    if count * 2 <= len(seen):
        return Unknown("gradients arrive in another order in each backward pass", "a model whose graph does not change")
    gradients = tuple(_gradient(shape, dtype) for shape, dtype in order)
    if any(each is None for each in gradients):
        return Unknown("the trace has no shapes of gradients", _NEEDS)
    shares = np.median([shares for found_order, shares in seen if found_order == order], axis=0)
    return Arrivals(tuple(each for each in gradients if each is not None), shares, count)


def _passes(host: pd.DataFrame, own: pd.DataFrame) -> list[tuple[tuple[tuple[str, str], ...], Floats]]:
    """Order of the gradients of each backward pass of one rank, and when they arrive within it."""
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
        first = nodes[np.searchsorted(nodes, after)] if np.searchsorted(nodes, after) < len(nodes) else start[chosen[0]]
        length = end[chosen[-1]] - first
        if length > 0:
            order = tuple((str(shapes[row]), str(dtypes[row])) for row in chosen)
            found.append((order, (end[chosen] - first) / length))
    return found


def _gradient(shape: str, dtype: str) -> Gradient | None:
    """One gradient from the inputs of its AccumulateGrad: `[[512,10]]` and `["float"]`."""
    try:
        sizes, names = json.loads(shape), json.loads(dtype)
        name = names[0]
        return Gradient(prod(int(each) for each in sizes[0]) * _BYTES[name], name)
    except (ValueError, TypeError, IndexError, KeyError):
        return None
