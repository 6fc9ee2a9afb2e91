"""Probed advice in the accuracy ledger: written before it is measured, void where the fork was short, and its reliability."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from perfnb.charts import alternative, svg
from perfnb.charts.training_probe import probe_chart, reliability_chart
from perfnb.errors import OutcomesError, TooManyRows
from perfnb.outcomes import calibration, read_ledger
from perfnb.outcomes.accuracy import accuracy
from perfnb.outcomes.probes import (
    expected_calibration_error,
    measured_gain,
    probe_rows,
    record_probe,
    record_probe_outcome,
    reliability,
)
from perfnb.prediction import Change
from perfnb.training.drawing import probe_drawing
from perfnb.training.probe_arms import Arm
from perfnb.training.probe_result import Branch, ProbeResult, result_of

CHANGE = Change("learning_rate", 0.1, 0.04)


def probed(*levels: float) -> ProbeResult:
    """Branches of 20 steps at those losses, the first with factor 1."""
    scatter = 0.01 * np.where(np.arange(20) % 2, 1.0, -1.0)
    branches = [
        Branch(Arm(f"x{factor:g}", factor), level + scatter * (1 + number), np.full(20, 0.1 * factor), np.full(20, 0.01))
        for number, (level, factor) in enumerate(zip(levels, (1.0, 0.4, 2.5, 10.0), strict=False))
    ]
    return result_of(branches, knob="learning_rate", planned_steps=200, first_loss=2.0, batches=())


def test_gain_is_a_share_of_the_attainable_drop() -> None:
    assert measured_gain(1.0, 0.8, 2.0, best=0.0) == pytest.approx(0.1)
    assert measured_gain(1.0, math.inf, 2.0, best=0.0) == pytest.approx(-0.5)
    assert measured_gain(3.0, 2.5, 2.0) == 0.0


def test_a_probe_and_what_came_of_it_are_one_row_per_branch(tmp_path: Path) -> None:
    told = record_probe(probed(1.0, 0.5, 1.5), workload="mine", folder=tmp_path)

    assert set(told) == {"x0.4", "x2.5"}
    for name, gain in (("x0.4", 0.3), ("x2.5", 0.005)):
        record_probe_outcome(*told[name], CHANGE, gain, probe_steps=20, compared_steps=60, folder=tmp_path)

    rows = probe_rows(read_ledger(tmp_path, shipped=False).rows)
    assert rows["is_better"].tolist() == [True, False]
    assert rows["gain"].tolist() == pytest.approx([0.3, 0.005])
    assert rows["chance"].iloc[0] > 0.5 > rows["chance"].iloc[1]
    assert rows["workload"].tolist() == ["mine", "mine"]
    assert accuracy(folder=tmp_path)["model"].str.startswith("training_probe").any()
    assert not calibration(read_ledger(tmp_path, shipped=False).rows).pairs  # no step time is learnt from it


def test_a_short_fork_is_void_and_a_whole_run_is_not(tmp_path: Path) -> None:
    told = record_probe(probed(1.0, 0.5, 1.5), folder=tmp_path)

    short = record_probe_outcome(*told["x0.4"], CHANGE, 0.3, probe_steps=20, compared_steps=59, folder=tmp_path)
    whole = record_probe_outcome(
        *told["x2.5"], CHANGE, -0.3, probe_steps=20, compared_steps=40, is_whole_run=True, folder=tmp_path
    )

    assert "less than 3 times" in short.void
    assert short.inside is None
    assert whole.void == ""
    assert whole.sign_ok is True
    assert len(probe_rows(read_ledger(tmp_path, shipped=False).rows)) == 1


def test_a_gain_that_is_no_number_is_refused(tmp_path: Path) -> None:
    told = record_probe(probed(1.0, 0.5), folder=tmp_path)

    with pytest.raises(OutcomesError, match="is no measurement"):
        record_probe_outcome(*told["x0.4"], CHANGE, math.nan, probe_steps=20, compared_steps=60, folder=tmp_path)


def test_reliability_counts_by_tenths_of_the_probability(tmp_path: Path) -> None:
    for gains in ((0.3, -0.2, -0.5), (0.2, -0.1, 0.2)):
        told = record_probe(probed(1.0, 0.5, 1.5, 3.0), folder=tmp_path)
        for (number, prediction), gain in zip(told.values(), gains, strict=True):
            record_probe_outcome(number, prediction, CHANGE, gain, probe_steps=20, compared_steps=60, folder=tmp_path)

    rows = read_ledger(tmp_path, shipped=False).rows
    bins = reliability(rows)

    assert bins["count"].sum() == 6
    assert bins["right"].iloc[-1] == 1.0
    assert bins["low"].le(bins["right"]).all()
    error = (bins["count"] * (bins["chance"] - bins["right"]).abs()).sum() / 6
    assert expected_calibration_error(rows) == pytest.approx(error)
    chart = reliability_chart(bins)
    assert "6 branches measured" in str(chart.to_dict()["title"])
    assert "<svg" in svg(chart)


def test_an_empty_ledger_has_no_reliability(tmp_path: Path) -> None:
    rows = read_ledger(tmp_path, shipped=False).rows

    assert reliability(rows).empty
    assert math.isnan(expected_calibration_error(rows))
    assert "none was measured yet" in alternative(reliability_chart(reliability(rows)))


def test_branches_of_a_probe_become_a_chart_of_few_rows() -> None:
    drawing = probe_drawing(probed(1.0, 0.5, 1.5))

    chart = probe_chart(drawing)

    assert "x0.4 better, ends at 0.5" in alternative(chart)
    assert chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    assert "<svg" in svg(chart)
    assert probe_chart(drawing.assign(loss=-1.0)).to_dict()["layer"][0]["encoding"]["y"]["scale"]["type"] == "linear"
    with pytest.raises(TooManyRows, match="probe_drawing"):
        probe_chart(pd.concat([drawing] * 50))


def test_a_hostile_name_of_a_change_is_text_in_the_chart() -> None:
    drawing = probe_drawing(probed(1.0, 0.5)).assign(change="<script>\x00alert(1)</script>")

    assert "<script>" not in svg(probe_chart(drawing))
