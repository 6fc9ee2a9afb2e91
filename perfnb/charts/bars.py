"""Bars of times, one per row, with the time and its share beside each: what several charts are made of."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import (
    INK,
    MOST_ROWS,
    colours,
    distinct,
    finished,
    label_axis,
    largest_three,
    time_unit,
    value_scale,
)
from perfnb.errors import TooManyRows


def time_bars(rows: pd.DataFrame, *, title: str, axis: str, subject: str, subtitle: str = "") -> alt.LayerChart:
    """Bars in the order of the rows.

    Parameters
    ----------
    rows
        One row per bar, texts already clean: label, group (of `theme.GROUP_COLOURS`) and time_us; beside the bar stands its
        share, or its value where the rows have that column instead; whole, where given, is the name that the label shortens.
    title
        Of the chart.
    axis
        Title of the axis of time, without its unit.
    subject
        What the bars are, for the text alternative.
    subtitle
        Below the title.
    """
    largest = float(rows["time_us"].max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    beside = rows["value"] if "value" in rows else rows["share"].map(text.share)
    values = [f"{text.duration(time)} ({each})" for time, each in zip(rows["time_us"], beside, strict=True)]
    labels = distinct(rows["label"])
    whole = rows["whole"].to_list() if "whole" in rows else labels
    drawn = pd.DataFrame(
        {"label": labels, "time": rows["time_us"] / scale, "colour": colours(rows["group"]), "value": values, "whole": whole}
    )
    base = alt.Chart(drawn).encode(
        y=alt.Y("label:N").sort(None).title(None).axis(label_axis(drawn["label"])),
        x=alt.X("time:Q")
        .title(f"{axis} ({unit})")
        .scale(value_scale(largest / scale, drawn["label"], values))
        .axis(alt.Axis(tickCount=6)),
        tooltip=[alt.Tooltip("whole:N").title("name"), alt.Tooltip("value:N")],
    )
    bars = base.mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.7}).encode(color=alt.Color("colour:N").scale(None))
    numbers = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text=alt.Text("value:N"))
    description = f"Bars of {subject}. Largest: {largest_three(drawn['label'], values)}." if len(rows) else f"No {subject}."
    below = subtitle if len(rows) else description
    return finished(bars, numbers, title=title, description=description, rows=len(rows), subtitle=below)


def stacked_bars(
    rows: pd.DataFrame,
    parts: Sequence[tuple[str, str, str]],
    *,
    title: str,
    axis: str,
    subject: str,
    aggregate: str,
    note: str = "",
) -> alt.LayerChart:
    """One bar per row, made of parts.

    Parameters
    ----------
    rows
        One row per bar, texts already clean: label, and the columns that `parts` name, in microseconds.
    parts
        Column, name and group (of `theme.GROUP_COLOURS`) of each part, from left to right.
    title, axis
        Of the chart, and of its axis of time without its unit.
    subject
        What the bars are, for the text alternative.
    aggregate
        What makes fewer rows, for the error.
    note
        A sentence on what the bars leave out, below the title and in the text alternative.

    Raises
    ------
    TooManyRows
        If the bars have more than 2,000 parts in all.
    """
    if len(rows) * len(parts) > MOST_ROWS:
        message = (
            f"a chart takes at most {MOST_ROWS:,} rows, this table has {len(rows):,} bars of {len(parts)} parts: "
            f"aggregate it with {aggregate}"
        )
        raise TooManyRows(message)
    times = rows[[column for column, _, _ in parts]].astype("float64")
    whole = times.sum(axis="columns")
    largest = float(whole.max()) if len(rows) else 0.0
    scale, unit = time_unit(largest)
    shares = times.div(whole.where(whole > 0), axis="index")
    drawn = pd.concat(
        [
            pd.DataFrame(
                {
                    "label": distinct(rows["label"]),
                    "part": name,
                    "order": place,
                    "time": times[column].to_numpy() / scale,
                    "value": _values(times[column], shares[column]),
                }
            )
            for place, (column, name, _) in enumerate(parts)
        ],
        ignore_index=True,
    )
    groups = pd.Series([group for _, _, group in parts], dtype=object)
    bars = (
        alt.Chart(drawn)
        .mark_bar(stroke=INK, strokeWidth=1, height={"band": 0.7})
        .encode(
            y=alt.Y("label:N").sort(None).title(None).axis(label_axis(drawn["label"])),
            x=alt.X("time:Q", stack="zero")
            .title(f"{axis} ({unit})")
            .scale(alt.Scale(domain=[0, largest / scale or 1.0], nice=False)),
            color=alt.Color("part:N")
            .scale(alt.Scale(domain=[name for _, name, _ in parts], range=colours(groups)))
            .legend(alt.Legend(orient="top", title=None, symbolStrokeColor=INK, labelFontSize=12, labelColor=INK)),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("label:N"), alt.Tooltip("part:N"), alt.Tooltip("value:N")],
        )
    )
    total = float(whole.sum())
    said = "; ".join(
        f"{name} {text.duration(times[column].sum())} ({text.share(times[column].sum() / (total or float('nan')))})"
        for column, name, _ in parts
    )
    description = f"Bars of {subject}, {len(rows):,} in all. Together: {said}." if len(rows) else f"No {subject}."
    below = note if len(rows) else f"{description} {note}".rstrip()
    description = f"{description} {note}".rstrip()
    return finished(bars, title=title, description=description, rows=len(rows), subtitle=below)


def _values(times: pd.Series, shares: pd.Series) -> list[str]:
    return [f"{text.duration(us)} ({text.share(part)})" for us, part in zip(times, shares, strict=True)]
