"""A chart as a picture that needs no script and no network: SVG by vl-convert."""

from __future__ import annotations

import re
from typing import Final

import altair as alt

from perfnb.charts.theme import AnyChart
from perfnb.errors import NoRendererError

# Inside an <img> nobody can reach these; the picture's alternative text stands beside it. A value holds no < in XML.
_UNREACHABLE: Final = re.compile(r' (?:aria-[a-z]+|role|class|pointer-events)="[^"<>]*"')


def svg(chart: AnyChart) -> str:
    """The chart as SVG text.

    Raises
    ------
    NoRendererError
        If vl-convert is not installed.
    """
    try:
        import vl_convert  # noqa: PLC0415 - where it is missing, everything but the pictures works
    except ImportError as error:
        message = "charts are shown as tables: vl-convert is not installed (pip install vl-convert-python)"
        raise NoRendererError(message) from error
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return _UNREACHABLE.sub("", str(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=version)))


def alternative(chart: AnyChart) -> str:
    """The chart's description, for screen readers and wherever pictures cannot be shown."""
    return str(chart.description)
