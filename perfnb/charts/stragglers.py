"""The charts of who waits for whom: waiting that each rank causes, and arrivals at the worst calls."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import (
    GROUP_COLOURS,
    INK,
    LOST,
    drawable,
    finished,
    label_axis,
    largest_three,
    time_unit,
    value_scale,
)


def stragglers_chart(caused: pd.DataFrame) -> alt.LayerChart:
    """Bars of the waiting that each rank causes.

    Parameters
    ----------
    caused
        One row per rank: rank, steps, caused_us, caused_share; from `perfnb.analyses.caused_waits`.

    Returns
    -------
    altair.LayerChart
        One bar per rank, in order of rank, with its time and its share of all waiting beside it.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 ranks.
    """
    rows = drawable(caused[["rank", "steps", "caused_us", "caused_share"]], "perfnb.analyses.stragglers")
    largest = float(rows["caused_us"].max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    values = [
        f"{text.duration(us)} ({text.share(part)})" for us, part in zip(rows["caused_us"], rows["caused_share"], strict=True)
    ]
    rows = rows.assign(label=[f"rank {rank:.0f}" for rank in rows["rank"]], time=rows["caused_us"] / scale, value=values)
    per = "per step" if len(rows) and rows["steps"].iloc[0] else "in the whole recording"
    base = alt.Chart(rows[["label", "time", "value"]]).encode(
        y=alt.Y("label:N").sort(None).title(None).axis(label_axis(rows["label"])),
        x=alt.X("time:Q")
        .title(f"waiting caused {per}, all ranks ({unit})")
        .scale(value_scale(largest / scale, rows["label"], values))
        .axis(alt.Axis(tickCount=6)),
        tooltip=[alt.Tooltip("label:N"), alt.Tooltip("value:N")],
    )
    bars = base.mark_bar(color=LOST, stroke=INK, strokeWidth=1, height={"band": 0.7})
    labels = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text=alt.Text("value:N"))
    ordered = rows.sort_values("caused_us", ascending=False)
    description = (
        f"Bars of the waiting at collectives that each of {text.count(len(rows), 'rank')} causes. "
        f"Largest: {largest_three(ordered['label'], list(ordered['value']))}."
    )
    return finished(
        bars,
        labels,
        title="Waiting at collectives, by the rank that came last",
        description=description,
        rows=len(rows),
        subtitle="share of all waiting beside it",
    )


def arrivals_chart(arrivals: pd.DataFrame) -> alt.LayerChart:
    """How long each rank waited at each call.

    Parameters
    ----------
    arrivals
        One row per (call, rank): call, rank, collective, wait_us, last_rank; from `perfnb.analyses.longest_waits`.

    Returns
    -------
    altair.LayerChart
        A field per rank and call, calls in order from left to right: the darker, the longer the rank waited; a dot marks the
        rank that came last.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    wanted = ["call", "rank", "collective", "wait_us", "last_rank"]
    rows = drawable(arrivals[wanted], "perfnb.analyses.longest_waits")
    rows = rows.assign(
        label=[f"rank {rank:.0f}" for rank in rows["rank"]],
        column=[f"{number:.0f} {collective}" for number, collective in zip(rows["call"], rows["collective"], strict=True)],
        wait=[text.duration(us) for us in rows["wait_us"]],
    )
    ranks = [f"rank {rank:.0f}" for rank in sorted(rows["rank"].unique())]
    largest = float(rows["wait_us"].max()) if len(rows) else 0.0
    base = alt.Chart(rows[["label", "column", "wait", "wait_us"]]).encode(
        x=alt.X("column:N").sort(None).title("call, in order of time").axis(alt.Axis(labelAngle=-45, labelLimit=160)),
        y=alt.Y("label:N").sort(ranks).title(None).axis(label_axis(rows["label"])),
        tooltip=[alt.Tooltip("label:N"), alt.Tooltip("column:N"), alt.Tooltip("wait:N")],
    )
    fields = base.mark_rect(color=GROUP_COLOURS["waiting"], stroke=INK, strokeWidth=0.3).encode(
        opacity=alt.Opacity("wait_us:Q").scale(alt.Scale(domain=[0, largest or 1.0], range=[0.05, 1])).legend(None)
    )
    last = rows[rows["rank"].eq(rows["last_rank"])]
    dots = (
        alt.Chart(last[["label", "column"]])
        .mark_circle(color=INK, size=36, opacity=1)
        .encode(x=alt.X("column:N").sort(None), y=alt.Y("label:N").sort(ranks))
    )
    waits = rows.groupby("label")["wait_us"].sum().sort_values(ascending=False)
    description = (
        f"Waiting of {text.count(len(ranks), 'rank')} at {text.count(rows['call'].nunique(), 'call')}, up to "
        f"{text.duration(largest)}. Waited longest: "
        f"{largest_three(pd.Series(waits.index), [text.duration(us) for us in waits])}."
    )
    return finished(
        fields,
        dots,
        title="Who waited at which collective",
        description=description,
        rows=len(ranks),
        subtitle=f"the darker, the longer, up to {text.duration(largest)}; dot: the rank that came last",
    )
