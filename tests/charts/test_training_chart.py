"""Chart of a training's losses: few rows, a robust trend, rules where findings fired, and no name that breaks out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from perfnb.charts import alternative, svg
from perfnb.charts.training import loss_chart
from perfnb.detector import Unmeasured
from perfnb.diagnose import diagnose
from perfnb.errors import TooManyRows
from perfnb.run import Run
from perfnb.training.drawing import MOST_POINTS, loss_drawing, training_events
from perfnb.training.examples import curve_run, decay


def test_a_long_curve_is_drawn_from_few_points() -> None:
    evaluations = np.where(np.arange(10_000) % 10 == 0, 1.0, np.nan)

    rows = loss_drawing(curve_run(decay(10_000), validation_loss=evaluations))

    assert rows["line"].value_counts().max() <= MOST_POINTS
    assert set(rows["line"]) == {"training loss", "its trend", "validation loss"}


def test_one_outlier_does_not_move_the_trend() -> None:
    losses = np.ones(50)
    losses[20] = 1_000.0

    rows = loss_drawing(curve_run(losses))

    assert rows.loc[rows["line"].eq("its trend"), "value"].tolist() == [1.0] * 50
    assert rows.loc[rows["line"].eq("training loss"), "value"].max() == 1_000.0


def test_a_block_with_a_nan_is_left_out_and_the_finding_marks_its_step() -> None:
    run = curve_run([*decay(20), math.nan, math.nan])

    rows, events = loss_drawing(run), training_events(diagnose(run))

    assert rows["step"].max() == 19
    assert list(zip(events["detector"], events["step"], strict=True)) == [("non_finite_loss", 21)]


def test_the_chart_says_in_words_what_it_shows() -> None:
    run = curve_run([*decay(20), math.nan, math.nan])

    chart = loss_chart(loss_drawing(run), training_events(diagnose(run)))

    assert "non finite loss at step 21" in alternative(chart)
    assert chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    assert "<svg" in svg(chart)


def test_losses_below_zero_stand_on_a_linear_axis() -> None:
    chart = loss_chart(loss_drawing(curve_run(-decay(20))))

    assert chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["type"] == "linear"
    assert "Found: nothing" in alternative(chart)


def test_a_run_without_a_finite_loss_is_an_empty_chart_and_without_a_table_a_reason() -> None:
    chart = loss_chart(loss_drawing(curve_run([math.nan] * 5)))

    assert "nothing recorded" in alternative(chart)
    assert "<svg" in svg(chart)
    with pytest.raises(Unmeasured, match="no rows"):
        loss_drawing(Run())


def test_a_hostile_name_of_a_finding_stays_text() -> None:
    events = pd.DataFrame({"step": [3], "detector": ["</script><img src=x>\x1b[2J"], "summary": ["x"]})

    chart = loss_chart(loss_drawing(curve_run(decay(20))), events)

    assert "<img" not in svg(chart)
    assert "\x1b" not in chart.to_json()


def test_too_many_rows_name_what_aggregates_them() -> None:
    rows = pd.DataFrame({"line": "training loss", "step": range(3_000), "value": 1.0})

    with pytest.raises(TooManyRows, match="loss_drawing"):
        loss_chart(rows)
