"""Colours, fonts and sizes of every chart: Okabe and Ito's palette, one meaning per colour, dark text on opaque white."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import altair as alt
import pandas as pd

from perfnb import text
from perfnb.blocks import Picture
from perfnb.errors import NoRendererError, TooManyRows

# Okabe and Ito, Color Universal Design (2008): told apart under every common colour blindness.
GROUP_COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "computing": "#009E73",
        "communication": "#0072B2",
        "copying": "#56B4E9",
        "data": "#E69F00",
        "waiting": "#CC79A7",
        "launching": "#F0E442",
        "python": "#BBBBBB",
        "other": "#BBBBBB",
        "unexplained": "#777777",
    }
)
LOST: Final = "#D55E00"
FASTER: Final = "#0072B2"
NO_EFFECT: Final = "#999999"
INK: Final = "#1a1a1a"
"""Text and outlines: 17:1 on white; every mark has an outline, for #E69F00 and #56B4E9 reach only 2.3:1 on white."""

BACKGROUND: Final = "#ffffff"
GRID: Final = "#e5e5e5"
FONT: Final = "system-ui, sans-serif"
WIDTH: Final = 640
ROW: Final = 28
PADDING: Final = 12
MOST_ROWS: Final = 2000

_CHARACTER: Final = 7.3  # mean width in pixels of a character of 12-pixel DejaVu Sans, the widest of the usual fonts
_GAP: Final = 10
_LABEL_LIMIT: Final = 200
_WIDEST: Final = 1.2  # the widest font over the one that vl-convert measures labels with
_LEAST_BARS: Final = 0.35  # share of the plot that bars keep, however long the numbers are

_VERDICTS: Final = MappingProxyType({"faster": FASTER, "slower": LOST, "no effect expected": NO_EFFECT})
AnyChart = alt.LayerChart
"""What every chart of perfnb is."""


class PicturedChart(alt.LayerChart):
    """An Altair chart that a notebook shows as a picture: Altair's own way fetches its libraries from the network."""

    def _repr_mimebundle_(self, *_: object, **__: object) -> dict[str, str]:
        """The picture with its description; the description alone where nothing can draw it."""
        from perfnb.charts.static import alternative, svg  # noqa: PLC0415 - static needs this module

        said = alternative(self)
        try:
            return {"text/html": str(Picture(svg(self), said).html()), "text/plain": said}
        except NoRendererError as error:
            return {"text/plain": f"{said} ({error})"}


def colours(groups: pd.Series) -> list[str]:
    """Colour of each group of ledger parts."""
    return [GROUP_COLOURS.get(str(group), GROUP_COLOURS["other"]) for group in groups]


def verdict_colours(verdicts: pd.Series) -> list[str]:
    """Colour of each prediction's verdict."""
    return [_VERDICTS.get(str(verdict), NO_EFFECT) for verdict in verdicts]


def drawable(frame: pd.DataFrame, aggregate: str) -> pd.DataFrame:
    """The frame with clean texts, if a chart may hold it.

    Control characters make vl-convert abort the process, so every text passes `perfnb.text.clean` here.

    Raises
    ------
    TooManyRows
        If it has more than `MOST_ROWS` rows; the message names the function that aggregates it.
    """
    if len(frame) > MOST_ROWS:
        message = f"a chart takes at most {MOST_ROWS:,} rows, this table has {len(frame):,}: aggregate it with {aggregate}"
        raise TooManyRows(message)
    texts = [column for column in frame if frame[column].dtype.kind not in "biuf"]
    return frame.assign(**{str(column): [text.name(value) for value in frame[column]] for column in texts})


def distinct(labels: pd.Series) -> list[str]:
    """The labels, those that are there already with a number: rows of one label would be drawn as one.

    Examples
    --------
    >>> distinct(pd.Series(["a", "b", "a"]))
    ['a', 'b', 'a (2)']
    """
    earlier = labels.groupby(labels, sort=False).cumcount()
    return [f"{label} ({number + 1})" if number else str(label) for label, number in zip(labels, earlier, strict=True)]


def time_unit(largest_us: float) -> tuple[float, str]:
    """Microseconds per unit and the unit's name, for an axis that reaches so far."""
    return (1e6, "s") if largest_us >= 1e6 else (1e3, "ms") if largest_us >= 1e3 else (1.0, "us")  # noqa: PLR2004 - the units


def label_axis(labels: pd.Series) -> alt.Axis:
    """The axis of row labels, as wide as they are in the widest common font: a picture is laid out before its font is known."""
    return alt.Axis(ticks=False, domain=False, labelPadding=8, labelLimit=_LABEL_LIMIT, minExtent=_label_room(labels))


def value_scale(largest: float, labels: pd.Series, values: list[str]) -> alt.Scale:
    """The scale of the bars, with room at its end for the numbers that stand beside the longest."""
    plot = WIDTH - 2 * PADDING - _label_room(labels) - 2 * _GAP
    numbers = max((len(value) for value in values), default=0) * _CHARACTER + 2 * _GAP
    return alt.Scale(domain=[0, largest / max(1.0 - numbers / plot, _LEAST_BARS) or 1.0], nice=False)


def finished(*layers: alt.Chart, title: str, description: str, rows: int, subtitle: str = "") -> alt.LayerChart:
    """The layers as one chart with its title, its description for screen readers, its size, and the look of all charts."""
    axis: dict[str, Any] = {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    }
    words: dict[str, Any] = {"subtitle": text.clean(subtitle), "subtitleFontSize": 12, "subtitleColor": INK} if subtitle else {}
    return cast(
        "alt.LayerChart",
        PicturedChart(layer=list(layers))
        .properties(
            title=alt.TitleParams(text.clean(title), anchor="start", frame="bounds", fontSize=14, color=INK, offset=8, **words),
            description=text.clean(description),
            width=WIDTH,
            height=ROW * max(rows, 1),
            background=BACKGROUND,
            padding=PADDING,
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure(font=FONT)
        .configure_view(stroke=None)
        .configure_axis(**axis, gridColor=GRID, domainColor=INK, tickColor=INK),
    )


def largest_three(labels: pd.Series, values: list[str]) -> str:
    """The first three rows in words, for the text alternative."""
    return "; ".join(f"{label} {value}" for label, value in list(zip(labels, values, strict=True))[:3])


def _label_room(labels: pd.Series) -> float:
    longest = max((len(str(label)) for label in labels), default=0)
    return min(longest * _CHARACTER, _LABEL_LIMIT * _WIDEST) + _GAP
