"""Chart of a machine's last minutes: how busy its cores and its GPUs were, and how full its memory."""

from __future__ import annotations

from typing import Final

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.charts.theme import GROUP_COLOURS, INK, LOST, drawable, finished

_HEIGHT_ROWS: Final = 6
_COLOURS: Final = (
    GROUP_COLOURS["communication"],
    GROUP_COLOURS["waiting"],
    GROUP_COLOURS["computing"],
    LOST,
    GROUP_COLOURS["data"],
    GROUP_COLOURS["unexplained"],
)
_DASHES: Final = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 4])


def monitor_chart(history: pd.DataFrame) -> alt.LayerChart:
    """Lines of shares over the last seconds.

    Parameters
    ----------
    history
        One row per point: line, seconds (0 or less: before the newest sample), share (0 to 1).

    Returns
    -------
    altair.LayerChart
        One line per name, in percent, told apart by colour and by dashes.

    Raises
    ------
    TooManyRows
        If there are more than 2,000 rows.
    """
    rows = drawable(history[["line", "seconds", "share"]], "perfnb.read.newest.now_of")
    rows = rows.assign(percent=100.0 * rows["share"].astype("float64"))[["line", "seconds", "percent"]]
    names = list(dict.fromkeys(rows["line"]))
    colour = alt.Scale(domain=names, range=[_COLOURS[at % len(_COLOURS)] for at in range(len(names))])
    dash = alt.Scale(domain=names, range=[_DASHES[at % len(_DASHES)] for at in range(len(names))])
    legend = alt.Legend(orient="top", title=None, labelFontSize=12, labelColor=INK, symbolType="stroke")
    lines = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("seconds:Q").title("seconds before the newest sample").scale(alt.Scale(nice=False)),
            y=alt.Y("percent:Q").title("share (%)").scale(alt.Scale(domain=[0, 100])),
            color=alt.Color("line:N").scale(colour).legend(legend),
            strokeDash=alt.StrokeDash("line:N").scale(dash).legend(legend),
            tooltip=[alt.Tooltip("line:N"), alt.Tooltip("seconds:Q", format=".1f"), alt.Tooltip("percent:Q", format=".0f")],
        )
    )
    last = [f"{name} {text.share(history.loc[rows['line'].eq(name), 'share'].iloc[-1])}" for name in names]
    description = f"Shares over the last seconds. Now: {'; '.join(last) or 'nothing sampled yet'}."
    return finished(lines, title="The last minutes", description=description, rows=_HEIGHT_ROWS, subtitle="; ".join(last))
