"""Which exchanges of gradients repeat what a later one of the same update exchanges again."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfnb.categories import per_text
from perfnb.run import Run

FORWARD: Final = "DistributedDataParallel.forward"  # torch/nn/parallel/distributed.py names its forward so
SEARCH: Final = "torch.distributed.ddp.reducer::search_unused_parameters"  # torch/csrc/distributed/c10d/reducer.cpp
_GRADIENTS: Final = ("all_reduce", "reduce_scatter")
_FEWEST: Final = 2


def repeated_syncs(run: Run, found: pd.DataFrame, accumulation: int | None) -> NDArray[np.bool_] | str:
    """Whether each call exchanges gradients of a micro-batch that is not the last of its update, or why that is not known.

    A micro-batch repeats where it holds the same calls, of the same sizes in the same order, as the last one of its step. Its
    edges are the starts of `DistributedDataParallel.forward`; without them a step's calls are cut into as many equal parts as it
    has micro-batches.

    Parameters
    ----------
    run
        The run: its steps with their micro-batches, and its host ops where there are any.
    found
        As `perfnb.analyses.transfers.transfers` returns it.
    accumulation
        Micro-batches of an update where `run.steps` does not tell.
    """
    calls = found[found["collective"].isin(_GRADIENTS)].sort_values(["rank", "launch_us", "start_us"], kind="stable")
    if calls.empty:
        return np.zeros(len(found), dtype=bool)
    micro, is_cut = _micro_batch(run, calls, accumulation)
    calls = calls.assign(micro=micro, is_cut=is_cut)
    keys = ["rank", "step", "micro"]
    parts = calls.groupby(keys, as_index=False).agg(
        sizes=("size_bytes", tuple), kinds=("size_bytes", "nunique"), is_cut=("is_cut", "first")
    )
    last = parts.groupby(["rank", "step"]).last().add_suffix("_last")
    parts = parts.merge(last, left_on=["rank", "step"], right_index=True)
    repeats = parts["sizes"].eq(parts["sizes_last"]) & parts["micro"].ne(parts["micro_last"])
    if (repeats & parts["is_cut"] & parts["kinds"].lt(_FEWEST)).any():
        return f"all gradients are exchanged in calls of one size, and the trace has no {FORWARD} to tell micro-batches apart"
    repeated = calls.merge(parts.assign(repeats=repeats)[[*keys, "repeats"]], how="left", on=keys)["repeats"].to_numpy(dtype=bool)
    flags = pd.Series(data=False, index=found.index)
    flags[calls.index[repeated]] = True
    return flags.to_numpy(dtype=bool)


def search_us(run: Run) -> float:
    """Time per forward pass in which DDP searches for unused parameters; NaN where no host op tells."""
    searches = run.host_ops[per_text(run.host_ops["name"], SEARCH.__eq__)]
    return float(searches["duration_us"].mean()) if len(searches) else float("nan")


def _micro_batch(run: Run, calls: pd.DataFrame, accumulation: int | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Number of each call's micro-batch, and whether it was found by cutting the calls of a step into equal parts."""
    micro, is_cut = np.zeros(len(calls), dtype=np.int64), np.zeros(len(calls), dtype=bool)
    moment = calls["launch_us"].fillna(calls["start_us"] - calls["wait_us"]).to_numpy()
    forwards = run.host_ops[per_text(run.host_ops["name"], FORWARD.__eq__)]
    starts = {rank: np.sort(own["start_us"].to_numpy()) for rank, own in forwards.groupby("rank")}
    told = run.steps.set_index(["rank", "step"])["micro_batches"].reindex(pd.MultiIndex.from_frame(calls[["rank", "step"]]))
    parts = told.fillna(accumulation or 1).to_numpy(dtype=np.int64)
    of_step = calls.groupby(["rank", "step"])
    position, number = of_step.cumcount().to_numpy(), of_step["rank"].transform("size").to_numpy()
    for rank in calls["rank"].unique():
        own = calls["rank"].eq(rank).to_numpy()
        if rank in starts:
            micro[own] = np.searchsorted(starts[rank], moment[own], side="right")
            continue
        whole = own & (parts > 1) & (number % np.maximum(parts, 1) == 0)
        micro[whole] = position[whole] // (number[whole] // parts[whole])
        is_cut |= whole
    return micro, is_cut
