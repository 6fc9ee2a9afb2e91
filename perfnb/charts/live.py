"""A chart as a widget: altair's JupyterChart with its libraries inlined, so that nothing is fetched."""

from __future__ import annotations

import altair as alt

from perfnb.charts.theme import AnyChart


def live(chart: AnyChart) -> alt.JupyterChart:
    """Widget of a chart, drawn as SVG, without the menu that leads to an outside page; new content by `.chart =`.

    The first call of a kernel puts Vega's libraries into the widget's own script (about a second); later ones cost nothing.
    """
    alt.JupyterChart.enable_offline()
    return alt.JupyterChart(chart, embed_options={"actions": False, "renderer": "svg"})
