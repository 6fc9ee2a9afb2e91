"""A trace without steps, its whole recording taken as one step: what its kernels lose can then be told, though not per step."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pandas as pd

from perfnb.run import Run
from perfnb.tables import conform

NO_STEPS_NOTE: Final = "the trace has no steps: its whole recording counts as one, from the first device op to the last"


def whole_window(run: Run) -> Run:
    r"""The run with one step per rank, from the start of its first device op to the end of its last.

    Parameters
    ----------
    run
        A run with device ops and without steps; any other is given back as it is.

    Examples
    --------
    >>> from perfnb.tables import table_from_text
    >>> ops = table_from_text("device_ops", "rank kind name start_us duration_us\n0 compute a 5 2\n0 compute b 9 3")
    >>> whole_window(Run(device_ops=ops)).steps[["start_us", "duration_us"]].to_numpy().tolist()
    [[5.0, 7.0]]
    """
    if len(run.steps) or run.device_ops.empty:
        return run
    ends = run.device_ops["start_us"] + run.device_ops["duration_us"]
    rank = run.device_ops["rank"]
    start = run.device_ops["start_us"].groupby(rank).min()
    duration = ends.groupby(rank).max() - start
    rows = pd.DataFrame({"rank": start.index, "step": 0, "start_us": start.to_numpy(), "duration_us": duration.to_numpy()})
    steps = conform("steps", rows.assign(is_edge=False, steps_inferred=True, is_profiled=True))
    return replace(run, steps=steps, signals=run.signals | {"steps"}, notes=(*run.notes, NO_STEPS_NOTE))
