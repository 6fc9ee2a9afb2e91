"""What frames say in their index, cells that hold several values, and times that state their unit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb.errors import LogFormatError
from perfnb.read.metrics import read_metrics

TIMES = pd.DataFrame({"step_time_ms": [10.0, 20.0]})

# --- the index and the columns of a frame ------------------------------------------------------------------------------


def test_named_levels_of_an_index_are_columns() -> None:
    by_step = read_metrics(TIMES.set_axis(pd.Index([5, 6], name="step")))
    by_both = read_metrics(TIMES.set_axis(pd.MultiIndex.from_tuples([(0, 5), (1, 5)], names=["rank", "step"])))

    assert by_step.steps["step"].to_list() == [5, 6]
    assert by_both.steps[["rank", "step", "duration_us"]].to_numpy().tolist() == [[0, 5, 1e4], [1, 5, 2e4]]
    assert by_both.world_size == 2


def test_an_index_of_a_columns_name_and_one_without_a_name_only_number_the_rows() -> None:
    named = read_metrics(TIMES.assign(step=[7, 8]).set_axis(pd.Index([5, 6], name="step")))
    nameless = read_metrics(TIMES.set_axis([5, 6]))

    assert named.steps["step"].to_list() == [7, 8]
    assert nameless.steps["step"].to_list() == [0, 1]
    assert nameless.metrics.empty


def test_an_index_of_dates_is_the_timestamp_unless_a_column_is() -> None:
    dates = pd.date_range("2026-01-01", periods=2, freq="h")

    run = read_metrics(TIMES.set_axis(dates))
    has_moments = read_metrics(TIMES.assign(time=[1_790_000_000.0, 1_790_000_001.0]).set_axis(dates))

    assert run.steps["start_us"].to_list() == [0.0, 3_600e6 - 1e4]
    assert has_moments.steps["start_us"].to_list() == [0.0, 1e6 - 1e4]


def test_levels_of_column_names_are_joined() -> None:
    columns = pd.MultiIndex.from_tuples([("step", ""), ("train", "loss"), ("gpu", "0/temperature")])

    run = read_metrics(pd.DataFrame([[3, 2.5, 60.0]], columns=columns))

    assert run.training[["step", "loss"]].to_numpy().tolist() == [[3, 2.5]]


# --- cells that hold several values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.array, pd.Series, list])
def test_several_values_in_a_cell_are_one_per_gpu(kind: Callable[[Any], Any]) -> None:
    run = read_metrics([{"step": step, "gpu_utilization": kind([30.0, 80.0])} for step in range(2)])

    assert run.gpu_samples[["gpu", "utilization_share"]].to_numpy().tolist() == [[0, 0.3], [1, 0.8]] * 2


@pytest.mark.torch
def test_tensors_in_cells_are_unfolded_and_those_of_one_element_are_numbers() -> None:
    torch = pytest.importorskip("torch")

    run = read_metrics(
        [
            {
                "step": step,
                "loss": torch.tensor([1.5], requires_grad=True),
                "grad_norm": torch.tensor(2.5, requires_grad=True),
                "gpu_utilization": torch.tensor([30.0, 80.0], dtype=torch.bfloat16),
            }
            for step in range(2)
        ]
    )

    assert run.training[["loss", "gradient_norm"]].to_numpy().tolist() == [[1.5, 2.5]] * 2
    assert run.gpu_samples[["gpu", "utilization_share"]].to_numpy().tolist() == [[0, 0.3], [1, 0.8]] * 2
    assert read_metrics({"step": torch.arange(2), "loss": torch.ones(2)}).training["loss"].to_list() == [1.0, 1.0]
    with pytest.raises(LogFormatError, match=r"'step_time_ms' is a Tensor"):
        read_metrics({"step_time_ms": torch.tensor(3.0)})


def test_one_number_as_a_whole_column_is_refused() -> None:
    with pytest.raises(LogFormatError, match=r"dict without rows: pass lists of equal length \('step_time_ms' is a ndarray\)"):
        read_metrics({"step_time_ms": np.array(3.0)})


def test_a_frame_in_a_cell_is_left_out_and_said() -> None:
    run = read_metrics([{"step": 0, "loss": 1.0, "table": pd.DataFrame({"a": [1, 2]})}])

    assert run.training["loss"].to_list() == [1.0]
    assert "training_metrics: 1 column without numbers left out: table" in run.notes


# --- durations and units -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [timedelta(milliseconds=20), pd.Timedelta("20ms"), np.timedelta64(20, "ms")])
def test_durations_state_their_unit(time: Any) -> None:
    run = read_metrics({"step": [0, 1, 2], "step_time": [time, time, None], "data_loading_time": [time / 2, time / 2, None]})

    assert run.steps["duration_us"].to_list() == [20_000.0, 20_000.0]
    assert run.phases["wall_us"].to_list() == [10_000.0] * 4


def test_a_pattern_for_other_columns_does_not_change_durations() -> None:
    frame = pd.DataFrame({"step": [0, 1], "step_time": pd.to_timedelta([20, 30], "ms"), "forward_time": [0.01, 0.01]})

    run = read_metrics(frame, units={"*_time": "s"})

    assert run.steps["duration_us"].to_list() == [20_000.0, 30_000.0]
    assert run.phases.loc[run.phases["phase"].eq("forward"), "wall_us"].to_list() == [10_000.0, 10_000.0]


def test_durations_since_the_start_are_moments_and_others_are_metrics_in_microseconds() -> None:
    since = [timedelta(seconds=1), timedelta(seconds=3)]

    run = read_metrics({"step": [0, 1], "elapsed": since, "saving": since, "loss": since})

    assert run.steps["duration_us"].to_list() == [2e6]
    assert run.metrics["value"].to_list() == [1e6, 3e6]
    assert "training_metrics: durations of 'saving' are in metrics, in microseconds" in run.notes
    assert "training_metrics: 1 column without numbers left out: loss" in run.notes


def test_what_is_no_duration_among_durations_is_missing_and_counted() -> None:
    second = timedelta(seconds=1)

    run = read_metrics({"step": range(4), "step_time": [second, second, 5, np.timedelta64(1, "Y")]})

    assert run.steps["duration_us"].to_list() == [1e6, 1e6]
    assert "training_metrics: 1 value of 'step_time' is no duration ('5'), and read as missing" in run.notes


def test_units_that_are_no_mapping_are_refused_with_how_to_write_them() -> None:
    with pytest.raises(LogFormatError, match=r'^units is a str: pass a mapping of column to unit, e\.g\. \{"\*_time": "ms"\}$'):
        read_metrics({"step": [0], "step_time": [1.0]}, units="ms")  # type: ignore[arg-type]
    with pytest.raises(LogFormatError, match=r"of 'step_time' is no unit"):
        read_metrics({"step": [0], "step_time": [1.0]}, units={"step_time": ["ms"]})  # type: ignore[dict-item]


def test_a_world_size_of_numpy_counts() -> None:
    log = {"rank": [0, 1], "step": [0, 0], "loss": [1.0, 2.0]}

    found = read_metrics(log, config={"world_size": np.int64(4)}).world_size

    assert (found, type(found)) == (4, int)
    with pytest.raises(LogFormatError, match="world_size 1, and the log has 2 ranks"):
        read_metrics(log, config={"world_size": np.int32(1)})
