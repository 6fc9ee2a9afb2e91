"""Charts of what changes over time: launch queues, copy rates, memory. Lines that hold each value to the next moment."""

from __future__ import annotations

from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, LOST, drawable, finished, time_unit

_HEIGHT_ROWS: Final = 10
_COLOURS: Final = (
    GROUP_COLOURS["communication"],
    LOST,
    GROUP_COLOURS["computing"],
    GROUP_COLOURS["waiting"],
    GROUP_COLOURS["data"],
    GROUP_COLOURS["copying"],
    GROUP_COLOURS["unexplained"],
)
_DASHES: Final = ([1, 0], [6, 3], [2, 2])
_BYTE_UNITS: Final = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def launch_queue_chart(queue: pd.DataFrame) -> alt.LayerChart:
    """Lines of the launch queue of each stream: device ops that were launched and have not started.

    Parameters
    ----------
    queue
        Rows of `perfnb.analyses.launch_queue`, few enough; from `perfnb.analyses.thinned_launch_queue`.

    Returns
    -------
    altair.LayerChart
        One line per rank, device and stream.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    drawable(queue[["time_us"]], "perfnb.analyses.thinned_launch_queue")
    lines = _line_names(queue, ["rank", "device", "stream"])
    points = pd.DataFrame({"time_us": queue["time_us"], "value": queue["length"], "line": lines})
    points.attrs.update(queue.attrs)
    highest = [f"{peak:,.0f} ops" for peak in _peaks(points)]
    return _step_lines(points, "Launch queue of each stream", "device ops launched and not started", highest)


def copy_bandwidth_chart(bandwidth: pd.DataFrame) -> alt.LayerChart:
    """Lines of the rate at which bytes are copied, by direction.

    Parameters
    ----------
    bandwidth
        Rows of `perfnb.analyses.copy_bandwidth`, few enough; from `perfnb.analyses.thinned_copy_bandwidth`.

    Returns
    -------
    altair.LayerChart
        One line per rank, device and direction.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    drawable(bandwidth[["time_us"]], "perfnb.analyses.thinned_copy_bandwidth")
    lines = _line_names(bandwidth, ["rank", "device", "direction"])
    points = pd.DataFrame(
        {"time_us": bandwidth["time_us"], "value": bandwidth["bytes_per_s"].astype("float64") / 1e9, "line": lines}
    )
    highest = [f"{peak:,.3g} GB/s" for peak in _peaks(points)]
    # a memset runs at the device's own memory rate, a hundred times that of a copy from the host
    return _step_lines(points, "Rate of copies and memsets", "rate (GB/s), near-logarithmic", highest, alt.Scale(type="symlog"))


def memory_chart(lines: pd.DataFrame) -> alt.LayerChart:
    """Lines of allocated and reserved memory over time.

    Parameters
    ----------
    lines
        `perfnb.analyses.memory_drawing(memory_timeline(run))`.

    Returns
    -------
    altair.LayerChart
        One line per rank, memory and measure.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    drawable(lines[["time_us"]], "perfnb.analyses.memory_drawing")
    place = "device " + lines["device"].astype("string")
    named = lines.assign(memory=place.fillna("host"), measure=lines["measure"].astype("string").str.replace("_", " "))
    size, unit = _byte_unit(float(lines["bytes"].abs().max()) if len(lines) else 0.0)
    drawn = _line_names(named, ["rank", "memory", "measure"])
    points = pd.DataFrame({"time_us": lines["time_us"], "value": lines["bytes"].astype("float64") / size, "line": drawn})
    highest = [text.byte_size(peak * size) for peak in _peaks(points)]
    return _step_lines(points, "Memory over time", f"memory ({unit})", highest)


def _step_lines(
    points: pd.DataFrame, title: str, axis: str, highest: list[str], scale_of_values: alt.Scale | None = None
) -> alt.LayerChart:
    """Points of all lines, in order within each: time_us, value and line; and the peak of each line in words."""
    rows = drawable(points, "an aggregate")
    names = list(dict.fromkeys(rows["line"]))
    scale, unit = time_unit(float(rows["time_us"].max()) if len(rows) else 0.0)
    rows = rows.assign(time=rows["time_us"] / scale, order=range(len(rows)))
    colour = alt.Scale(domain=names, range=[_COLOURS[place % len(_COLOURS)] for place in range(len(names))])
    dash = alt.Scale(domain=names, range=[_DASHES[place // len(_COLOURS) % len(_DASHES)] for place in range(len(names))])
    legend = alt.Legend(
        orient="top", title=None, labelFontSize=12, labelColor=INK, columns=3, labelLimit=200, symbolType="stroke"
    )
    chart = (
        alt.Chart(rows[["time", "value", "line", "order"]])
        .mark_line(interpolate="step-after", strokeWidth=1.5)
        .encode(
            x=alt.X("time:Q").title(f"time since the first event ({unit})").scale(alt.Scale(nice=False, zero=False)),
            y=alt.Y("value:Q").title(axis).scale(scale_of_values or alt.Scale()),
            color=alt.Color("line:N").scale(colour).legend(legend),
            strokeDash=alt.StrokeDash("line:N").scale(dash).legend(legend),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("line:N"), alt.Tooltip("value:Q", format=",.4~g"), alt.Tooltip("time:Q", format=",.3f")],
        )
    )
    said = "; ".join(f"{name} {peak}" for name, peak in list(zip(names, highest, strict=True))[:3])
    description = (
        f"{title}, {text.count(len(names), 'line')} over time. Highest: {said}." if names else f"{title}: nothing recorded."
    )
    left_out = int(points.attrs.get("lines_left_out", 0))
    below = f"{text.count(left_out, 'further line')} with lower values not drawn" if left_out else ""
    return finished(chart, title=title, description=description, rows=_HEIGHT_ROWS, subtitle=below if names else description)


def _line_names(frame: pd.DataFrame, keys: list[str]) -> pd.Series:
    """What to call the line of each row: rank and device only where they differ."""
    shown = [key for key in keys if key == keys[-1] or len(frame[key].drop_duplicates()) > 1]
    named = pd.Series("", index=frame.index, dtype="string")
    for key in shown:
        value = frame[key].astype("string").fillna("unknown")
        word = value if key in ("direction", "measure", "memory") else f"{key} " + value
        named = named + (", " if key != shown[0] else "") + word
    return named.map(text.name)


def _peaks(points: pd.DataFrame) -> list[float]:
    return [float(peak) for peak in points.groupby("line", sort=False)["value"].max()]


def _byte_unit(largest: float) -> tuple[int, str]:
    return next(((size, unit) for size, unit in _BYTE_UNITS if largest >= size), (1, "B"))
