"""Where the host of a device job logs: it reads values of tensors, and does what follows the optimizer in a step."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import matching
from perfnb.intervals import Intervals, clip, joined, subtract, union
from perfnb.read.kineto.classify import LOADER_PATTERN

_READS: Final = r"^aten::(?:item|_local_scalar_dense)$"  # Tensor.item(), aten/src/ATen/native/Scalar.cpp
_OPTIMIZER: Final = r"^Optimizer\.step"  # torch/optim/optimizer.py: profile_hook_step


def logging_spans(host: pd.DataFrame, steps: pd.DataFrame) -> Intervals:
    """Host time of one rank that logging is taken to be.

    Every `.item()`, and in each step what follows its last `Optimizer.step`; never the loader.

    Parameters
    ----------
    host
        Host rows of the rank.
    steps
        Its steps.
    """
    optimizer_end = (host["start_us"] + host["duration_us"])[matching(host["name"], _OPTIMIZER)].sort_values().to_numpy()
    low, high = steps["start_us"].to_numpy(), (steps["start_us"] + steps["duration_us"]).to_numpy()
    last = np.searchsorted(optimizer_end, high, side="right") - 1
    known = (last >= 0) & (optimizer_end[np.maximum(last, 0)] > low) if len(optimizer_end) else np.zeros(len(low), dtype=bool)
    after = union(optimizer_end[last[known]], high[known])
    found = joined(_spans(host, matching(host["name"], _READS)), after)
    return subtract(clip(found, float(low.min()), float(high.max())), _spans(host, matching(host["name"], LOADER_PATTERN)))


def _spans(host: pd.DataFrame, chosen: NDArray[np.bool_]) -> Intervals:
    start: NDArray[np.float64] = host["start_us"][chosen].to_numpy()
    return union(start, start + host["duration_us"][chosen].to_numpy())
