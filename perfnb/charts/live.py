"""A chart as a widget: altair's JupyterChart with its libraries inlined, so that nothing is fetched."""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt

from perfnb.charts.offline import bundle
from perfnb.charts.theme import AnyChart

LiveChart = alt.JupyterChart
"""What `live` gives; its class is one of its own, with the script in it."""


def live(chart: AnyChart) -> LiveChart:
    """Widget of a chart, drawn as SVG, without the menu that leads to an outside page; new content by `.chart =`.

    The first call on a machine puts Vega's libraries into the widget's own script (some seconds); it is kept in the user's cache
    folder for later kernels.
    """
    return _offline_chart()(chart, embed_options={"actions": False, "renderer": "svg"})


@cache
def _offline_chart() -> type[alt.JupyterChart]:
    """JupyterChart with a script that holds all its libraries; the charts of others in this kernel stay as they are."""
    members: dict[str, Any] = {"_esm": bundle(), "__doc__": alt.JupyterChart.__doc__, "__module__": __name__}
    return type("OfflineChart", (alt.JupyterChart,), members)
