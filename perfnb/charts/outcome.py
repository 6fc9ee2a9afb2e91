"""The chart of an outcome: what was predicted beside what was measured, each on its interval."""

from __future__ import annotations

import altair as alt
import pandas as pd

from perfnb.charts.impact import impact_chart
from perfnb.charts.theme import INK
from perfnb.text import duration


def outcome_chart(impact: pd.DataFrame) -> alt.LayerChart:
    """Predicted and measured time as dots on their 80 % intervals; the dashed line is the time before the change.

    Parameters
    ----------
    impact
        Rows "predicted" and "measured" of `perfnb.facts.impact`; without a prediction the first has no numbers.

    Returns
    -------
    altair.LayerChart
        One row for each, with its numbers beside it.
    """
    before = duration(float(impact["before_us"].mean()))
    drawn = impact_chart(impact)
    title = alt.TitleParams(
        f"Predicted and measured (before the change {before})",
        anchor="start",
        frame="bounds",
        fontSize=14,
        color=INK,
        offset=8,
        subtitle="dot: mean, bar: 80 % interval, dashed line: before the change",
        subtitleFontSize=12,
        subtitleColor=INK,
    )
    said = str(drawn.description).replace("Predicted step time beside", "Predicted and measured time beside")
    return drawn.properties(title=title, description=said.replace(" now,", " before the change,"))
