"""The charts of what devices did: kinds of time, overlap of communication, causes of idle time."""

from __future__ import annotations

from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.bars import stacked_bars, time_bars
from perfnb.charts.theme import drawable

_CAUSES: Final = {  # cause of idle time -> what it is called, and its group
    "data": ("waiting for the DataLoader", "data"),
    "sync": ("held by a synchronization", "waiting"),
    "launch": ("launching", "launching"),
    "python": ("Python between launches", "python"),
    "transfer": ("copying from pageable memory", "copying"),
    "dependency": ("waiting for another stream or rank", "waiting"),
    "unattributed": ("no launch recorded", "unexplained"),
}


def device_breakdown_chart(breakdown: pd.DataFrame) -> alt.LayerChart:
    """Bars of what each device did.

    Parameters
    ----------
    breakdown
        One row per (rank, device), or per (rank, device, step); from `perfnb.device_breakdown`.

    Returns
    -------
    altair.LayerChart
        One bar per row, made of computing, exposed communication, exposed copies and idle time.

    Raises
    ------
    TooManyRows
        If there are more than 500 rows, of four parts each.
    """
    parts = (
        ("compute_us", "computing", "computing"),
        ("exposed_communication_us", "exposed communication", "communication"),
        ("exposed_copy_us", "exposed copies", "copying"),
        ("idle_us", "idle", "other"),
    )
    return stacked_bars(
        breakdown.assign(label=_labels(breakdown)),
        parts,
        title="What each device did",
        axis="time",
        subject="device time by kind",
        aggregate="perfnb.device_breakdown(run, by='window'), or draw the rows of some ranks or steps",
    )


def communication_overlap_chart(overlap: pd.DataFrame) -> alt.LayerChart:
    """Bars of each device's communication, hidden and exposed.

    Parameters
    ----------
    overlap
        One row per (rank, device), or per (rank, device, step); from `perfnb.analyses.communication_overlap`. Rows whose
        communication is NA are left out: a sentence below the title counts them.

    Returns
    -------
    altair.LayerChart
        One bar per row with communication.

    Raises
    ------
    TooManyRows
        If there are more than 1,000 rows with communication, of two parts each.
    """
    known = overlap["communication_us"].notna()
    unknown, rows = int((~known).sum()), overlap[known]
    parts = (("overlapped_us", "hidden behind computing", "computing"), ("exposed_communication_us", "exposed", "communication"))
    return stacked_bars(
        rows.assign(label=_labels(rows)),
        parts,
        title="Communication",
        axis="time",
        subject="communication by device",
        aggregate="perfnb.analyses.communication_overlap(run, by='window'), or draw the rows of some ranks or steps",
        note=f"Not measured: {unknown:,} of {text.count(len(overlap), 'bar')}; the table's column reason says why."
        if unknown
        else "",
    )


def idle_chart(summary: pd.DataFrame) -> alt.LayerChart:
    """Bars of why devices idled.

    Parameters
    ----------
    summary
        One row per (rank, device, cause); from `perfnb.analyses.idle_summary`. Devices are added up.

    Returns
    -------
    altair.LayerChart
        One bar per cause, the longest first.
    """
    together = summary.groupby("cause", observed=True)["idle_us"].sum().sort_values(ascending=False, kind="stable")
    named = [_CAUSES.get(str(cause), (str(cause), "other")) for cause in together.index]
    rows = pd.DataFrame(
        {
            "label": pd.Series([name for name, _ in named], dtype=object),
            "group": pd.Series([group for _, group in named], dtype=object),
            "time_us": together.to_numpy(dtype=float),
            "share": (together / (float(together.sum()) or float("nan"))).to_numpy(dtype=float),
        }
    )
    return time_bars(
        drawable(rows, "perfnb.analyses.idle_summary(run)"),
        title="Why devices idled",
        axis="idle time of all devices",
        subject="idle time by cause",
    )


def _labels(rows: pd.DataFrame) -> list[str]:
    """Rank, device and step of each row, as far as they tell rows apart."""
    device = rows["device"].to_numpy(dtype=float, na_value=-1)
    devices = pd.DataFrame({"rank": rows["rank"].to_numpy(), "device": device}).drop_duplicates()
    alone = len(devices) == rows["rank"].nunique()
    labels = [
        f"rank {rank:.0f}" + ("" if alone else f" device {number:.0f}" if number >= 0 else " device unknown")
        for rank, number in zip(rows["rank"], device, strict=True)
    ]
    if "step" not in rows:
        return labels
    return [f"{label} step {step:.0f}" for label, step in zip(labels, rows["step"], strict=True)]
