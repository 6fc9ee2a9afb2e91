"""Charts: pure functions of small tables, that describe themselves and that no name can break out of."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest

import perfnb
from perfnb.charts import alternative, breakdown_chart, findings_chart, impact_chart, live, step_timeline_chart, svg
from perfnb.charts.theme import GROUP_COLOURS, INK
from perfnb.errors import NoRendererError, TooManyRows

Draw = Callable[[pd.DataFrame], alt.LayerChart]

HOSTILE = "</script><img src=x onerror=alert(1)>\x00\x1b[2J\u202e\ufffe\"'&datum.value"
PACKAGE = Path(perfnb.__file__).parent


def tables(name: str) -> dict[str, tuple[Draw, pd.DataFrame]]:
    """Each chart with a table of two rows, the first of which has this name."""
    return {
        "breakdown": (
            breakdown_chart,
            pd.DataFrame(
                {"label": [name, "Forward"], "group": ["data", "computing"], "time_us": [6e4, 4e4], "share": [0.6, 0.4]}
            ),
        ),
        "findings": (
            findings_chart,
            pd.DataFrame({"detector": [name, "host_sync"], "severity": [0.5, 0.1], "low": [0.4, 0.06], "high": [0.6, 0.2]}),
        ),
        "impact": (
            impact_chart,
            pd.DataFrame(
                [(name, 100.0, 50.0, 40.0, 60.0, 2.0, "faster"), ("cache", *[float("nan")] * 5, "unknown")],
                columns=["label", "before_us", "after_us", "low_us", "high_us", "speedup", "verdict"],
            ),
        ),
        "timeline": (
            step_timeline_chart,
            pd.DataFrame(
                {
                    "lane": [name, "Host"],
                    "group": ["data", "computing"],
                    "start_us": [0.0, 50.0],
                    "end_us": [50.0, 90.0],
                    "busy_share": [1.0, 0.5],
                }
            ),
        ),
    }


CHARTS = list(tables(""))


@pytest.fixture(params=CHARTS)
def chart(request: pytest.FixtureRequest) -> tuple[Draw, pd.DataFrame]:
    return tables("Waiting")[request.param]


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(inner)


def test_a_chart_is_a_pure_function_of_its_table(chart: tuple[Draw, pd.DataFrame]) -> None:
    draw, frame = chart
    before = frame.copy(deep=True)

    assert draw(frame).to_dict() == draw(frame).to_dict()
    pd.testing.assert_frame_equal(frame, before)


def test_a_chart_describes_itself_with_its_largest_values(chart: tuple[Draw, pd.DataFrame]) -> None:
    draw, frame = chart

    description = alternative(draw(frame))

    assert draw(frame).to_dict()["description"] == description
    assert "Waiting" in description
    assert re.search(r"\d", description)
    assert description.endswith(".")


def test_a_chart_has_dark_text_on_opaque_white(chart: tuple[Draw, pd.DataFrame]) -> None:
    draw, frame = chart
    spec = draw(frame).to_dict()

    assert spec["background"] == "#ffffff"
    assert spec["config"]["axis"]["labelColor"] == spec["title"]["color"] == INK


def test_more_rows_than_a_chart_may_hold_are_refused_with_what_to_do(chart: tuple[Draw, pd.DataFrame]) -> None:
    draw, frame = chart
    many = pd.concat([frame] * 1001, ignore_index=True)

    with pytest.raises(TooManyRows, match=r"at most 2,000 rows, this table has 2,002: aggregate it with"):
        draw(many)


@pytest.mark.parametrize("name", ["breakdown", "findings", "timeline"])
def test_a_chart_without_rows_can_be_drawn(name: str) -> None:
    draw, frame = tables("x")[name]

    assert svg(draw(frame.head(0))).startswith("<svg")


@pytest.mark.parametrize("name", CHARTS)
def test_a_hostile_name_reaches_the_picture_as_text_only_and_the_process_lives(name: str) -> None:
    draw, frame = tables(HOSTILE)[name]

    picture = svg(draw(frame))

    tags = set(re.findall(r"<(\w+)", picture))
    assert tags <= {"svg", "g", "path", "line", "text", "rect", "defs", "clipPath"}
    assert not re.search(r"[\x00-\x1f\u202e\ufffe]", picture)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_names_no_address_and_uses_no_expression(name: str) -> None:
    draw, frame = tables(HOSTILE)[name]
    spec = draw(frame).to_dict()

    assert not {"href", "url", "usermeta", "expr", "transform", "labelExpr"} & set(_keys(spec))
    assert "data" in json.dumps(spec)


def test_all_marks_of_one_meaning_have_one_colour_and_each_meaning_its_own() -> None:
    told_apart = {group: colour for group, colour in GROUP_COLOURS.items() if group not in ("python", "other")}

    assert len(set(told_apart.values())) == len(told_apart)


def test_an_unknown_prediction_shows_no_number() -> None:
    draw, frame = tables("4 workers")["impact"]
    spec = draw(frame).to_dict()

    rows = [row for data in spec["datasets"].values() for row in data if row["label"] == "cache"]
    assert {row["value"] for row in rows} == {"unknown"}
    assert {row["after"] for row in rows} == {None}


def test_a_live_chart_needs_no_network_and_has_no_menu() -> None:
    draw, frame = tables("x")["breakdown"]

    widget = live(draw(frame))

    assert widget.embed_options == {"actions": False, "renderer": "svg"}
    assert not re.search(r"import[^;\n]{0,80}https?://", str(type(widget)._esm))


def test_without_vl_convert_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    draw, frame = tables("x")["breakdown"]

    with pytest.raises(NoRendererError, match="vl-convert is not installed"):
        svg(draw(frame))


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.name)
def test_no_module_uses_a_sink_that_takes_names_as_markup(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))

    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {"to_html", "save", "HTMLMath", "expr"}
    if file.parent.name != "panels" and file.name != "yaml_text.py":  # there it is how a scalar is quoted in YAML
        assert "style" not in used
    if file.name != "base.py":
        assert "HTML" not in used


@pytest.mark.parametrize("file", sorted((PACKAGE / "charts").glob("*.py")), ids=lambda file: file.name)
def test_no_chart_computes_in_vega(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))

    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in called if name.startswith("transform_")}
    assert not called & {"datum", "labelExpr", "condition", "add_params"}
