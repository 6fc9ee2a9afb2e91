"""Logs that lack, repeat or mix things: each reading is said in a note, or refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb.errors import LogFormatError
from perfnb.read import log_text
from perfnb.read.metrics import read_metrics

START_S = 1_790_000_000.0


def said(run: Any) -> str:
    return " ".join(run.notes)


def test_rows_of_a_step_that_differ_by_gpu_in_more_than_samples_are_ranks() -> None:
    rows = [{"step": step, "device": gpu, "step_time_ms": 10.0 + gpu} for step in range(2) for gpu in range(2)]

    run = read_metrics(rows)

    assert run.steps[["rank", "step", "duration_us"]].to_numpy().tolist() == [
        [0, 0, 1e4],
        [0, 1, 1e4],
        [1, 0, 1.1e4],
        [1, 1, 1.1e4],
    ]
    assert "each GPU is read as a rank" in said(run)


def test_rows_without_a_rank_or_a_step_are_left_out_and_counted() -> None:
    run = read_metrics({"rank": [0, None, 0], "step": [0, 1, None], "loss": [1.0, 2.0, 3.0]})

    assert run.training["loss"].to_list() == [1.0]
    assert "1 row without a rank left out" in said(run)
    assert "1 row without a step left out" in said(run)


def test_a_log_without_rows_of_the_rank_to_read_is_refused() -> None:
    with pytest.raises(
        LogFormatError, match=r"no row is left to read \(training_metrics: 2 rows of other ranks than 5 left out\)"
    ):
        read_metrics({"rank": [0, 1], "step": [0, 0], "loss": [1.0, 2.0]}, rank=5)


def test_rows_per_gpu_without_steps_are_numbered_per_gpu() -> None:
    run = read_metrics({"gpu": [0, 1, 0, 1], "loss": [1.0, 1.0, 2.0, 2.0]})

    assert run.training[["step", "loss"]].to_numpy().tolist() == [[0, 1.0], [1, 2.0]]


def test_steps_without_a_time_are_not_in_the_table_and_counted() -> None:
    run = read_metrics({"step": [0, 1, 2], "step_time_ms": [10.0, None, 0.0], "loss": [1.0, 1.0, 1.0]})
    none = read_metrics({"step": [0, 1], "step_time_ms": [0.0, 0.0]})

    assert run.steps["step"].to_list() == [0]
    assert "2 rows of 3 without a step time" in said(run)
    assert none.missing["steps"] == "no row has a step time above 0"


def test_steps_without_a_moment_are_not_in_the_table_and_counted() -> None:
    run = read_metrics({"step": [0, 1], "timestamp": [START_S, None], "step_time_s": [1.0, 1.0]})

    assert run.steps["step"].to_list() == [0]
    assert "1 step without a moment left out" in said(run)


def test_steps_between_which_others_are_not_logged_are_laid_end_to_end_and_that_is_said() -> None:
    run = read_metrics({"step": [0, 10, 20], "step_time_ms": [1.0, 2.0, 3.0]})

    assert run.steps["start_us"].to_list() == [0.0, 1e3, 3e3]
    assert "laid end to end, though steps between them are not in the log" in said(run)


def test_times_of_phases_without_times_of_steps_are_left_out_and_said() -> None:
    run = read_metrics({"step": [0, 10], "forward_time_ms": [1.0, 2.0]})

    assert run.phases.empty
    assert "no column of step times" in run.missing["phases"]


def test_a_phase_that_was_not_logged_leaves_the_rest_of_its_step_unknown() -> None:
    run = read_metrics(
        {"step": [0, 1], "step_time_ms": [10.0, 10.0], "forward_time_ms": [4.0, 4.0], "backward_time_ms": [5.0, None]}
    )
    never = read_metrics(
        {"step": [0, 1], "step_time_ms": [10.0, 10.0], "forward_time_ms": [4.0, None], "backward_time_ms": [None, 5.0]}
    )

    assert run.phases.loc[run.phases["phase"].eq("other"), "wall_us"].fillna(-1).to_list() == [1_000.0, -1.0]
    assert never.phases.empty
    assert never.missing["phases"].startswith("no row has a time for each of its phases (forward_time_ms, backward_time_ms)")


def test_phases_longer_than_their_step_by_less_than_a_percent_are_scaled_to_it() -> None:
    run = read_metrics({"step": [0], "step_time_ms": [100.0], "forward_time_ms": [50.25], "backward_time_ms": [50.25]})

    assert run.phases["wall_us"].to_list() == pytest.approx([50_000.0, 50_000.0, 0.0])
    assert "scaled to it, in 1 row" in said(run)


def test_bytes_without_moments_have_no_rate() -> None:
    run = read_metrics({"step": [0, 1], "loss": [1.0, 2.0], "disk_read_bytes": [1e6, 2e6], "cpu_percent": [50, 60]})

    assert run.host_samples["disk_read_bytes_per_s"].isna().all()
    assert "no rate can be told" in said(run)


def test_snapshots_that_say_neither_step_nor_moment_are_metrics() -> None:
    run = read_metrics({"step": [0], "loss": [1.0]}, {"allocated_gib": [1.0, 2.0], "used_gib": [3.0, 3.0]})

    assert run.allocator.empty
    assert run.metrics.loc[run.metrics["name"].eq("gpu_memory_allocated"), "value"].to_list() == [1 << 30, 2 << 30]
    assert "neither moments nor steps" in said(run)
    assert len(run.gpu_samples) == 2


def test_clocks_of_inputs_that_need_not_be_one_are_named() -> None:
    relative = {"elapsed_s": [0.5, 1.0], "cpu_percent": [50, 60]}

    both = read_metrics({"step": [0, 1], "elapsed_s": [1.0, 2.0], "step_time_s": [1.0, 1.0]}, None, relative)
    mixed = read_metrics({"step": [0, 1], "timestamp": [START_S, START_S + 1], "loss": [1, 2]}, None, relative)

    assert "taken to count from one start" in said(both)
    assert both.host_samples["time_us"].to_list() == [5e5, 1e6]
    assert "some from a start of their own" in said(mixed)


def test_memory_of_the_host_is_completed_from_what_is_available() -> None:
    total = {"timestamp": [START_S], "memory_total_gib": [100], "memory_available_gib": [25]}
    used = {"timestamp": [START_S], "memory_used_gib": [60], "memory_available_gib": [40]}

    runs = [read_metrics({"step": [0], "loss": [1.0]}, None, system) for system in (total, used)]

    assert [run.host_samples["memory_bytes"].iloc[0] for run in runs] == [75 << 30, 60 << 30]
    assert [run.host_samples["memory_limit_bytes"].iloc[0] for run in runs] == [100 << 30, 100 << 30]


def test_free_memory_of_a_gpu_completes_its_total() -> None:
    run = read_metrics([{"step": 0, "gpu_memory_used_gib": 60, "gpu_memory_free_gib": 20}])

    assert run.gpu_samples["memory_total_bytes"].to_list() == [80 << 30]


def test_skipped_steps_and_micro_batches_have_their_columns() -> None:
    run = read_metrics({"step": [0, 1], "loss": [1.0, 1.0], "skipped": [True, False], "gradient_accumulation_steps": [4, 4]})

    assert run.training["skipped"].to_list() == [True, False]
    assert run.training["micro_batches"].to_list() == [4, 4]


def test_two_columns_of_one_quantity_are_named_and_the_first_is_taken() -> None:
    run = read_metrics({"step": [0], "loss": [1.0], "train/loss": [2.0]})

    assert run.training["loss"].to_list() == [1.0]
    assert "'train/loss' and 'loss' both are loss" in said(run)


@pytest.mark.parametrize(
    ("columns", "units", "quantity"),
    [
        ({"gpu_power": [300.0]}, None, ("power_w", 300.0)),
        ({"gpu_power": [300_000.0]}, {"gpu_power": "mW"}, ("power_w", 300.0)),
        ({"gpu_temperature": [70.0]}, None, ("temperature_c", 70.0)),
        ({"gpu_0_sm_clock_mhz": [1410.0]}, None, ("sm_clock_mhz", 1410.0)),
    ],
)
def test_power_heat_and_clocks_are_samples(columns: dict[str, Any], units: Any, quantity: tuple[str, float]) -> None:
    run = read_metrics({"step": [0], **columns}, units=units)

    assert run.gpu_samples[quantity[0]].to_list() == [quantity[1]]


@pytest.mark.parametrize(
    ("log", "units", "message"),
    [
        ({"step": [0], "gpu_power": [300_000.0]}, None, "'gpu_power' .*: W, mW"),
        ({"step": [0, 1], "timestamp": [0.5, 1.5], "loss": [1, 2]}, None, "'timestamp' .*0.5 to 1.5: h, min, s"),
        (
            {"step": [0, 1], "timestamp": [0.5, 1.5], "loss": [1, 2]},
            {"timestamp": "GiB"},
            "'timestamp' cannot be in GiB: it is a moment",
        ),
    ],
)
def test_what_cannot_be_read_is_asked_for(log: dict[str, Any], units: Any, message: str) -> None:
    with pytest.raises(LogFormatError, match=message):
        read_metrics(log, units=units)


def test_a_column_of_steps_without_any_number_is_none() -> None:
    assert read_metrics({"step": [None, None], "loss": [1, 2]}).training["step"].to_list() == [0, 1]


def test_dates_of_frames_are_moments_and_dates_with_blanks_are_missing() -> None:
    frame = pd.DataFrame({"step": [0, 1, 2], "date": pd.to_datetime(["2026-01-01", None, "2026-01-02"]), "loss": [1.0, 2.0, 3.0]})

    run = read_metrics(frame)

    assert run.training["time_us"].fillna(-1).to_list() == [0.0, -1.0, 86_400e6]


def test_nested_objects_are_unfolded_to_a_depth_and_to_a_number() -> None:
    run = read_metrics([{"step": 0, "gpu": {"0": {"memory": {"used_gib": 3}}}, "deep": {"a": {"b": {"c": {"d": {"e": 1}}}}}}])

    assert run.gpu_samples["memory_used_bytes"].to_list() == [3 << 30]
    with pytest.raises(LogFormatError, match="unfold"):
        read_metrics([{"step": 0, "weights": list(range(20_100))}])


def test_numbers_that_no_column_can_hold_are_missing() -> None:
    run = read_metrics([{"step": 0, "loss": 10**400, "gpu_memory_used_gib": 1e300, "epoch": 1e300, "num_ooms": 1e30}])

    assert np.isinf(run.training["loss"].iloc[0])
    assert run.gpu_samples["memory_used_bytes"].isna().all()


def test_a_file_that_names_one_column_twice_or_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.json"
    file.write_text(json.dumps({"rows": [{"step": 0, "loss": 1.0}]}), encoding="utf-8")
    frame = pd.DataFrame([[0, 1.0, 2.0]], columns=["step", "loss", "loss"])

    assert read_metrics(file).training["loss"].to_list() == [1.0]
    with pytest.raises(LogFormatError, match="two columns named 'loss'"):
        read_metrics(frame)
    with pytest.raises(LogFormatError, match="is a folder"):
        read_metrics(tmp_path)
    with pytest.raises(LogFormatError, match=r"gone\.csv cannot be read: No such file"):
        read_metrics(tmp_path / "gone.csv")
    monkeypatch.setattr(log_text, "LARGEST_BYTES", 10)
    with pytest.raises(LogFormatError, match="over the 10 that are read"):
        read_metrics(file)


@pytest.mark.parametrize(
    ("content", "message"), [(b"3", "cannot be read as CSV|holds|no rows"), (b"[3]", "entry 1 is a int"), (b'{"a": 3}', "")]
)
def test_json_of_another_shape_is_refused_or_one_row(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_bytes(content)

    if not message:
        assert read_metrics(tmp_path / "log.json").metrics["value"].to_list() == [3.0]
        return
    with pytest.raises(LogFormatError, match=message):
        read_metrics(tmp_path / "log.json")
