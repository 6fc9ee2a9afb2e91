"""The chart of what a step's critical path is made of."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb.charts.bars import time_bars
from perfnb.charts.theme import drawable

_GROUPS = {  # kind of a piece -> group of `theme.GROUP_COLOURS`
    "kernel": "computing",
    "communication": "communication",
    "copy": "copying",
    "data loading": "data",
    "launch": "launching",
    "runtime call": "launching",
    "synchronization": "waiting",
    "queue": "waiting",
    "dependency": "waiting",
    "host other": "python",
    "unknown": "unexplained",
}


def critical_path_chart(summary: pd.DataFrame) -> alt.LayerChart:
    """Bars of what the critical path of a step is made of.

    Parameters
    ----------
    summary
        One row per kind: kind, time_us, share; from `perfnb.whatif.critical_path.critical_path_summary`.

    Returns
    -------
    altair.LayerChart
        One bar per kind with its time and its share of the step.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(summary, "perfnb.whatif.critical_path.critical_path_summary(path)")
    rows = rows.assign(label=rows["kind"], group=[_GROUPS.get(str(kind), "other") for kind in rows["kind"]])
    return time_bars(rows, title="What the critical path is made of", axis="time", subject="time on the critical path by kind")
