"""The critical path of a step: the one chain of work and waits, on host and devices, that its length is made of."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from perfnb.errors import PerfnbError
from perfnb.ledger import used_steps
from perfnb.run import Run
from perfnb.whatif.path_table import named
from perfnb.whatif.path_walk import walked
from perfnb.whatif.work_graph import work_graph


def critical_path(run: Run, step: int | Literal["window"] | None = None, rank: int | None = None) -> pd.DataFrame:
    r"""The chain of work and waits that made a step as long as it was, in time order; its pieces cover the step exactly once.

    From the end of the step backwards: a host thread's own time, until it went on only because a device op (a synchronizing
    call, a blocking copy) or another thread (the backward engine) was done; a device op, until it started, which came after
    the last of its launch call, the op before it in its stream and an op of another stream that it waited for. A wait across
    streams that no record states is taken from the op that ended in the 15 us before, where nothing else explains a start
    later than usual; its name says "inferred". What the trace does not tell is a piece `unknown`.

    Parameters
    ----------
    run
        A run with host or device ops.
    step
        Number of a step; "window" for all that was recorded. By default the used step of middle length, and the window where
        the run has no steps.
    rank
        By default the rank that was longest in that step.

    Returns
    -------
    pandas.DataFrame
        One row per piece: start_us, duration_us, place (host thread or device stream), kind (one of
        `perfnb.whatif.host_lines.KINDS`), name, and table and row (label) of what it is, NA where it is none. `attrs` holds
        rank, step (NA for the window), start_us and duration_us of what is covered.

    Raises
    ------
    PerfnbError
        If the run has no such step or rank, or neither host nor device ops.
    LedgerError
        If the pieces do not cover the step: a defect of perfnb.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> run = Run(
    ...     steps=table_from_text("steps", "rank step start_us duration_us\n0 1 0 50"),
    ...     host_ops=table_from_text(
    ...         "host_ops",
    ...         '''rank process thread category name             start_us duration_us correlation
    ...            0    1       1      runtime  cudaLaunchKernel 0        4           1
    ...            0    1       1      runtime  cudaDeviceSynchronize 10  40          2''',
    ...     ),
    ...     device_ops=table_from_text(
    ...         "device_ops",
    ...         '''rank device stream kind    name start_us duration_us correlation
    ...            0    0      7      compute gemm 6        42          1''',
    ...     ),
    ... )
    >>> critical_path(run)[["start_us", "duration_us", "kind", "name"]]
       start_us  duration_us             kind                   name
    0       0.0          6.0           launch       cudaLaunchKernel
    1       6.0         42.0           kernel                   gemm
    2      48.0          2.0  synchronization  cudaDeviceSynchronize
    """
    number, chosen, low, high = chosen_window(run, step, rank)
    graph = work_graph(run, chosen, low, high)
    pieces = walked(graph, to_host=number is not pd.NA)
    path = named(run, graph, pieces)
    path.attrs.update(rank=chosen, step=number, start_us=low, duration_us=high - low)
    return path


def critical_path_summary(path: pd.DataFrame, by: Literal["kind", "name"] = "kind") -> pd.DataFrame:
    """Share of the step by what its critical path is made of, largest first.

    Parameters
    ----------
    path
        From `critical_path`.
    by
        "kind", or "name" for each name of each kind.

    Returns
    -------
    pandas.DataFrame
        One row per kind, or kind and name: pieces (how many), time_us, share (of the step).

    Raises
    ------
    PerfnbError
        If `by` is neither.
    """
    if by not in ("kind", "name"):
        message = f"by={by!r} is not known: use 'kind' or 'name'"
        raise PerfnbError(message)
    keys = ["kind"] if by == "kind" else ["kind", "name"]
    summed = path.groupby(keys, observed=True, as_index=False, dropna=False)["duration_us"].agg(["count", "sum"])
    summed = summed.rename(columns={"count": "pieces", "sum": "time_us"})
    total = float(path["duration_us"].sum())
    summed = summed.assign(share=summed["time_us"] / total if total else 0.0)
    ordered: pd.DataFrame = summed.sort_values("time_us", ascending=False, kind="stable", ignore_index=True)
    return ordered


def chosen_window(run: Run, step: int | str | None, rank: int | None) -> tuple[object, int, float, float]:
    """Step number (NA for the window), rank, start and end of what is asked for."""
    if run.host_ops.empty and run.device_ops.empty:
        message = "the run has neither host nor device ops, so nothing is known of what its steps wait for: read a profiler trace"
        raise PerfnbError(message)
    if rank is not None and rank not in run.ranks:
        message = f"rank {rank} is not in the run: it has {', '.join(map(str, run.ranks))}"
        raise PerfnbError(message)
    steps = run.steps if rank is None else run.steps[run.steps["rank"] == rank]
    if step == "window" or (step is None and steps.empty):
        return (pd.NA, *_recorded(run, rank))
    if step is None:
        used = used_steps(run)
        used = used if rank is None else used[used["rank"] == rank]
        longest = (used if len(used) else steps).groupby("step")["duration_us"].max().sort_values(kind="stable")
        step = int(longest.index[(len(longest) - 1) // 2])
    own = steps[steps["step"] == step]
    if own.empty:
        known = ", ".join(map(str, sorted(steps["step"].unique())[:10])) or "none"
        message = f"step {step} is not in the run: it has {known}; 'window' asks for all that was recorded"
        raise PerfnbError(message)
    row = own.sort_values("duration_us", kind="stable").iloc[-1]
    return int(row["step"]), int(row["rank"]), float(row["start_us"]), float(row["start_us"] + row["duration_us"])


def _recorded(run: Run, rank: int | None) -> tuple[int, float, float]:
    """Rank, first start and last end of what was recorded; of the rank of most time where none is given."""
    spans = {}
    for each in run.ranks if rank is None else (rank,):
        rows = pd.concat(
            [table.loc[table["rank"] == each, ["start_us", "duration_us"]] for table in (run.host_ops, run.device_ops)]
        )
        if len(rows):
            spans[each] = float(rows["start_us"].min()), float((rows["start_us"] + rows["duration_us"]).max())
    if not spans:
        message = f"rank {rank} has neither host nor device ops: read its profiler trace"
        raise PerfnbError(message)
    longest = max(spans, key=lambda each: spans[each][1] - spans[each][0])
    return longest, *spans[longest]
