"""The charts of what devices did: kinds of time, overlap, idle causes, kernels and operators."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb.charts.bars import stacked_bars, time_bars
from perfnb.charts.theme import drawable

_KINDS = {"compute": "computing", "communication": "communication", "copy": "copying", "memset": "copying"}
_CAUSES = {  # cause of idle time -> what it is called, and its group
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
        If there are more than 2,000 rows.
    """
    rows = drawable(breakdown, "perfnb.device_breakdown(run)")
    parts = (
        ("compute_us", "computing", "computing"),
        ("exposed_communication_us", "exposed communication", "communication"),
        ("exposed_copy_us", "exposed copies", "copying"),
        ("idle_us", "idle", "other"),
    )
    return stacked_bars(rows.assign(label=_labels(rows)), parts, title="What each device did", axis="time")


def communication_overlap_chart(overlap: pd.DataFrame) -> alt.LayerChart:
    """Bars of each device's communication, hidden and exposed.

    Parameters
    ----------
    overlap
        One row per (rank, device); from `perfnb.analyses.communication_overlap`. Devices whose communication was not measured
        are left out.
    """
    rows = drawable(overlap[overlap["communication_us"].notna()], "perfnb.analyses.communication_overlap(run)")
    parts = (("overlapped_us", "hidden behind computing", "computing"), ("exposed_communication_us", "exposed", "communication"))
    return stacked_bars(rows.assign(label=_labels(rows)), parts, title="Communication", axis="time")


def idle_chart(summary: pd.DataFrame) -> alt.LayerChart:
    """Bars of why devices idled.

    Parameters
    ----------
    summary
        One row per (rank, device, cause); from `perfnb.analyses.idle_summary`. Devices are added up.
    """
    together = summary.groupby("cause", observed=True)["idle_us"].sum().sort_values(ascending=False, kind="stable")
    known = [_CAUSES.get(str(cause), (str(cause), "other")) for cause in together.index]
    rows = pd.DataFrame(
        {
            "label": [name for name, _ in known],
            "group": [group for _, group in known],
            "time_us": together.to_numpy(dtype=float),
            "share": (together / together.sum()).to_numpy(dtype=float) if len(together) else [],
        }
    )
    return time_bars(
        drawable(rows, "perfnb.analyses.idle_summary(run)"),
        title="Why devices idled",
        axis="idle time of all devices",
        subject="idle time by cause",
    )


def kernels_chart(kernels: pd.DataFrame) -> alt.LayerChart:
    """Bars of the kernels with the most time.

    Parameters
    ----------
    kernels
        One row per (kind, name): total_us, share; from `perfnb.analyses.largest(kernel_summary(run))`.
    """
    rows = drawable(kernels, "perfnb.analyses.largest")
    rows = rows.assign(label=rows["name"], group=[_KINDS.get(kind, "other") for kind in rows["kind"]], time_us=rows["total_us"])
    return time_bars(rows, title="Kernels with the most time", axis="total over all devices", subject="device time by kernel")


def operators_chart(operators: pd.DataFrame, count: int = 20) -> alt.LayerChart:
    """Bars of the operators that launched the most device time.

    Parameters
    ----------
    operators
        One row per (rank, operator); from `perfnb.analyses.operator_kernels`. Ranks are added up.
    count
        How many operators to show.
    """
    named = operators.assign(operator=operators["operator"].astype("object").where(operators["operator"].notna(), "no operator"))
    together = named.groupby("operator")["kernel_us"].sum().sort_values(ascending=False, kind="stable")
    shown = together.head(count)
    rows = pd.DataFrame(
        {"label": shown.index, "group": "computing", "time_us": shown.to_numpy(), "share": (shown / together.sum()).to_numpy()}
    )
    return time_bars(
        drawable(rows, "perfnb.analyses.operator_kernels"),
        title="Operators that launched the most device time",
        axis="device time of all ranks",
        subject="device time by operator",
    )


def _labels(rows: pd.DataFrame) -> list[str]:
    """Rank, device and step of each row, as far as they tell rows apart."""
    devices = rows[["rank", "device"]].drop_duplicates()
    alone = len(devices) == rows["rank"].nunique()
    labels = [
        f"rank {rank:.0f}" + ("" if alone else f" device {device:.0f}" if device >= 0 else " device unknown")
        for rank, device in zip(rows["rank"], rows["device"], strict=True)
    ]
    if "step" not in rows:
        return labels
    return [f"{label} step {step:.0f}" for label, step in zip(labels, rows["step"], strict=True)]
