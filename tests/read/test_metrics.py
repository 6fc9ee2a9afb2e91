"""Metrics that others logged become a Run: names, units, contradictions, ranks, samples, and what detectors need of them."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perfnb.errors import LogFormatError
from perfnb.ledger import step_ledger
from perfnb.read.metric_meaning import meaning
from perfnb.read.metrics import read_metrics
from perfnb.run import Run

START_S = 1_790_000_000.0


def realistic() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Two ranks with two GPUs' values in lists, 40 steps of 100 and 120 ms, a loader that stalls in every tenth step."""
    training = []
    for rank in range(2):
        now = START_S
        for step in range(40):
            total = 0.1 if rank == 0 else 0.12
            data = 0.06 if step % 10 == 9 else 0.02
            now += total
            training.append(
                {
                    "rank": rank,
                    "step": step,
                    "epoch": step // 20,
                    "timestamp": now,
                    "step_time": total,
                    "data_loading_time": data,
                    "forward_time": 0.01,
                    "backward_time": 0.01,
                    "optimizer_time": 0.005,
                    "communication_time": 0.015,
                    "gpu_utilization": {"0": 20, "1": 40} if rank == 0 else {"0": 60, "1": 80},
                    "loss": 2.0 / (step + 1),
                    "learning_rate": 1e-3,
                    "grad_norm": 1.5,
                    "batch_size": 32,
                    "throughput": 32 / total,
                }
            )
    memory = [
        {"step": step, "rank": rank, "gpu_memory_used": 76.0, "gpu_memory_total": 80.0, "allocated": 50.0, "reserved": 74.0}
        for rank in range(2)
        for step in range(40)
    ]
    system = [
        {
            "timestamp": START_S + second,
            "cpu_percent": 97.0,
            "memory_percent": 91.0,
            "memory_used": 182.0,
            "memory_total": 200.0,
            "disk_io_read_bytes": 5e7 * second,
            "disk_io_write_bytes": 1e6 * second,
            "network_io_sent_bytes": 3e6 * second,
            "network_io_recv_bytes": 3e6 * second,
        }
        for second in range(5)
    ]
    return training, memory, system


UNITS = {"*_time": "s", "gpu_memory_*": "GiB", "allocated": "GiB", "reserved": "GiB", "memory_used": "GiB", "memory_total": "GiB"}


@pytest.fixture(scope="module")
def run() -> Run:
    return read_metrics(*realistic(), {"world_size": 2, "batch_size": 32}, units=UNITS)


def test_one_log_carries_what_every_detector_of_the_first_list_needs(run: Run) -> None:
    gpu, host = run.gpu_samples, run.host_samples
    wall = run.phases.pivot_table(index=["rank", "step"], columns="phase", values="wall_us", observed=True)
    whole = run.steps.set_index(["rank", "step"])["duration_us"]

    low_utilization = gpu["utilization_share"].mean()
    gpu_memory = (gpu["memory_used_bytes"] / gpu["memory_total_bytes"]).max()
    communication = (wall["communication"].sum()) / whole.sum()
    by_gpu = gpu.dropna(subset=["utilization_share"]).groupby(["rank", "gpu"])["utilization_share"].mean()
    by_rank = whole.groupby("rank").mean()
    data = wall["data"]

    assert low_utilization == pytest.approx(0.5)
    assert gpu_memory == pytest.approx(76 / 80)
    assert communication == pytest.approx(0.015 * 80 / (0.1 * 40 + 0.12 * 40))
    assert by_gpu.to_list() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert 1 - by_rank.mean() / by_rank.max() == pytest.approx(1 - 0.11 / 0.12)
    assert host["cpu_share"].mean() == pytest.approx(0.97)
    assert (host["memory_bytes"] / host["memory_limit_bytes"]).max() == pytest.approx(0.91)
    assert host["disk_read_bytes_per_s"].dropna().to_list() == pytest.approx([5e7] * 4)
    assert host["network_send_bytes_per_s"].dropna().mean() == pytest.approx(3e6)
    assert data.sum() / whole.sum() == pytest.approx((0.02 * 72 + 0.06 * 8) / 8.8)
    assert data.quantile(0.99) / data.median() == pytest.approx(3.0)
    assert (run.allocator["allocated_bytes"] / run.allocator["reserved_bytes"]).unique() == pytest.approx([50 / 74])


def test_the_ledger_of_a_log_sums_to_its_steps(run: Run) -> None:
    ledger = step_ledger(run)

    sums = ledger.groupby(["rank", "step"])["time_us"].sum()
    assert sums.to_numpy() == pytest.approx(run.steps.sort_values(["rank", "step"])["duration_us"].to_numpy())
    assert ledger.loc[ledger["part"].eq("other.wall") & ledger["rank"].eq(0), "time_us"].iloc[0] == pytest.approx(40_000)


def test_a_run_says_what_was_recorded_and_why_the_rest_was_not(run: Run) -> None:
    assert run.signals >= {"steps", "phases", "loader", "gpu_samples", "host_samples", "training", "allocator", "phases.other"}
    assert set(run.missing) == {"collectives", "device_ops", "host_ops", "allocations"}
    assert run.world_size == 2
    assert run.ranks == (0, 1)
    assert run.steps["epoch"].unique().tolist() == [0, 1]
    assert run.config["batch_size"] == 32
    assert any("throughput" in note for note in run.notes)


def test_moments_count_from_the_start_of_the_first_step(run: Run) -> None:
    first = run.steps[run.steps["rank"].eq(0)].iloc[:2]

    assert first["start_us"].to_numpy() == pytest.approx([0, 100_000], abs=1)  # both ranks' first steps begin at START_S
    assert run.host_samples["time_us"].iloc[1] == pytest.approx(1e6, abs=1)


@pytest.mark.parametrize("form", ["dicts", "lists", "frame", "csv", "tsv", "jsonl", "json", "json of lists", "parquet"])
def test_every_form_of_a_log_gives_the_same_tables(form: str, tmp_path: Path) -> None:
    rows = [{"step": step, "step_time_ms": 20.0 + step, "loss": 1.0 / (step + 1), "acc": 0.5} for step in range(12)]
    frame = pd.DataFrame(rows)
    source: Any = {"dicts": rows, "lists": frame.to_dict("list"), "frame": frame}.get(form)
    if source is None:
        source = tmp_path / f"log.{form.partition(' ')[0]}"
        if form == "parquet":
            pytest.importorskip("pyarrow")
            frame.to_parquet(source)
        else:
            text = {
                "csv": frame.to_csv(index=False),
                "tsv": frame.to_csv(index=False, sep="\t"),
                "jsonl": "\n".join(map(json.dumps, rows)),
                "json": json.dumps(rows, indent=1),
                "json of lists": json.dumps(frame.to_dict("list")),
            }[form]
            source.write_text(text, encoding="utf-8")

    run = read_metrics(source)

    assert run.steps["duration_us"].to_list() == [20_000.0 + 1_000 * step for step in range(12)]
    assert run.training["loss"].iloc[1] == 0.5
    assert run.metrics["name"].unique().tolist() == ["acc"]
    assert run.source == (() if isinstance(source, (list, dict, pd.DataFrame)) else (source.name,))


# --- units -------------------------------------------------------------------------------------------------------------


def test_columns_without_a_unit_are_listed_with_their_range_and_the_call_to_make() -> None:
    rows = {"step": [0, 1], "step_time": [0.25, 0.31], "gpu_memory_used": [40.0, 41.5]}

    with pytest.raises(LogFormatError) as raised:
        read_metrics(rows)

    said = str(raised.value)
    assert "'step_time' (training_metrics, 0.25 to 0.31: h, min, s, ms, us, ns)" in said
    assert "'gpu_memory_used' (training_metrics, 40 to 41.5: B, KiB" in said
    assert 'units={"step_time": "s", "gpu_memory_used": "MiB"}' in said


def test_columns_of_all_inputs_are_asked_for_at_once_and_those_of_gpus_together() -> None:
    with pytest.raises(
        LogFormatError, match=r"^3 columns have no unit.*'gpu_memory_used' of 2 GPUs.*'memory_used' \(system_metrics"
    ):
        read_metrics({"step_time": [1, 2]}, [{"step": 0, "gpu_memory_used": [1, 2]}], {"timestamp": [2e9], "memory_used": [5]})


@pytest.mark.parametrize(
    ("name", "value", "microseconds"),
    [
        ("step_time_ms", 20, 20_000),
        ("step_time_s", 0.02, 20_000),
        ("Step Time (s)", 0.02, 20_000),
        ("iteration_time_us", 20, 20),
        ("sec_per_step", 2, 2e6),
        ("iteration-time", 0.5, 5e5),
        ("time_metrics/end_to_end(s)", 0.5, 5e5),
        ("train_step_timing in s", 0.5, 5e5),
    ],
)
def test_a_unit_in_the_name_is_the_unit(name: str, value: float, microseconds: float) -> None:
    run = read_metrics({"step": [0, 1], name: [value, value]})

    assert run.steps["duration_us"].to_list() == [microseconds, microseconds]


@pytest.mark.parametrize("key", ["step_time", "iter_time", "*_time", "i*"])
def test_a_unit_is_given_by_the_quantity_the_column_or_a_pattern(key: str) -> None:
    run = read_metrics({"step": [0, 1], "iter_time": [1.5, 2.0]}, units={key: "s"})

    assert run.steps["duration_us"].to_list() == [1.5e6, 2e6]


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({"step_tme": "s"}, "'step_tme', which no column"),
        ({"step_time": "fortnight"}, "'fortnight' of 'step_time' is no unit"),
        ({"step_time": "GiB"}, "'step_time' cannot be in GiB"),
    ],
)
def test_a_unit_that_does_not_fit_is_refused(units: dict[str, str], said: str) -> None:
    with pytest.raises(LogFormatError, match=said):
        read_metrics({"step_time": [1.0, 2.0]}, units={"step_time": "s", **units})


def test_percent_is_told_by_values_over_one_for_all_gpus_together_and_said_in_a_note() -> None:
    run = read_metrics([{"step": 0, "gpu_utilization": [0, 1, 93]}, {"step": 1, "gpu_utilization": [1, 0, 95]}])

    assert run.gpu_samples["utilization_share"].to_list() == [0.0, 0.01, 0.93, 0.01, 0.0, 0.95]
    assert any("gpu_utilization.0" in note and "read as percent, for values reach 95" in note for note in run.notes)


@pytest.mark.parametrize("name", ["gpu_utilization", "cpu_percent"])
def test_shares_that_may_be_of_1_or_of_100_are_asked_for(name: str) -> None:
    with pytest.raises(LogFormatError, match=rf"'{name}' .*0\.4 to 0\.9: percent, share"):
        read_metrics({"step": [0, 1], name: [0.4, 0.9]})

    run = read_metrics({"step": [0, 1], name: [0.4, 0.9]}, units={name: "share"})
    shares = run.gpu_samples["utilization_share"] if name.startswith("gpu") else run.host_samples["cpu_share"]
    assert shares.to_list() == [0.4, 0.9]


def test_nothing_but_zeros_needs_no_unit() -> None:
    run = read_metrics({"step": [0, 1], "gpu_utilization": [0, 0], "gpu_memory_used": [0, 0]})

    assert run.gpu_samples["utilization_share"].to_list() == [0.0, 0.0]


def test_a_percentage_over_100_is_refused() -> None:
    with pytest.raises(LogFormatError, match=r"'cpu_percent' goes from 80 to 412, and percent ends at 100.*process_cpu_percent"):
        read_metrics({"step": [0, 1], "cpu_percent": [80, 412]})

    assert read_metrics({"step": [0], "process_cpu_percent": [412]}).host_samples["own_cpu_cores"].to_list() == [4.12]


def test_megabytes_are_powers_of_1024_unless_the_caller_says_otherwise() -> None:
    log = {"step": [0], "gpu_memory_used_mb": [1000]}

    assert read_metrics(log).gpu_samples["memory_used_bytes"].to_list() == [1000 << 20]
    assert "powers of 1024" in " ".join(read_metrics(log).notes)
    assert read_metrics(log, units={"gpu_memory_used_mb": "MB"}).gpu_samples["memory_used_bytes"].to_list() == [10**9]


def test_a_size_that_can_only_be_bytes_is_read_as_bytes_and_said() -> None:
    run = read_metrics({"step": [0], "gpu_memory_used": [40 * 2**30]})

    assert run.gpu_samples["memory_used_bytes"].to_list() == [40 << 30]
    assert any("read as bytes" in note for note in run.notes)


# --- contradictions ----------------------------------------------------------------------------------------------------


def test_phases_in_another_unit_than_their_step_are_refused_with_numbers() -> None:
    log = {"step": [0, 1], "step_time": [0.1, 0.1], "forward_time": [30.0, 30.0]}

    with pytest.raises(
        LogFormatError, match=r"longer than their step in 100 % of 2 rows: medians are forward_time 30\.0 s, of a step of 100 ms"
    ):
        read_metrics(log, units={"*_time": "s"})


def test_few_phases_longer_than_their_step_are_left_out_and_counted() -> None:
    forward = [50.0] * 9 + [150.0]

    run = read_metrics({"step": range(10), "step_time_ms": [100.0] * 10, "forward_time_ms": forward})

    assert "in 1 row of 10" in " ".join(run.notes)
    assert run.phases.loc[run.phases["step"].eq(9), "wall_us"].isna().all()
    assert step_ledger(run).groupby("step")["time_us"].sum().to_list() == pytest.approx([100_000.0] * 10)


def test_communication_beside_other_phases_is_no_phase() -> None:
    columns = {"step_time_ms": 100.0, "forward_time_ms": 30.0, "backward_time_ms": 60.0, "communication_time_ms": 50.0}

    run = read_metrics({"step": range(4), **{name: [value] * 4 for name, value in columns.items()}})

    assert "communication" not in run.phases["phase"].to_list()
    assert "overlaps" in run.missing["phases.communication"]
    assert run.metrics.loc[run.metrics["name"].eq("communication_us"), "value"].to_list() == [50_000.0] * 4


@pytest.mark.parametrize(("unit", "times"), [("h", "3.6e"), ("us", "1e-06")])
def test_step_times_that_do_not_fit_the_moments_of_their_rows_are_refused(unit: str, times: str) -> None:
    log = {"step": range(20), "timestamp": [START_S + second for second in range(20)], "step_time": [1.0] * 20}

    with pytest.raises(LogFormatError, match=rf"19 steps take .* by their step times and 19\.0 s .*\({times}.* times\)"):
        read_metrics(log, units={"step_time": unit})

    assert len(read_metrics(log, units={"step_time": "s"}).steps) == 20


def test_more_memory_used_than_there_is_is_refused() -> None:
    with pytest.raises(
        LogFormatError, match=r"memory_used_bytes of GPU 1 is 79\.0 GiB where memory_total_bytes is 74\.5 GiB, in 1 row"
    ):
        read_metrics(
            {"step": [0], "gpu_1_memory_used": [79], "gpu_memory_total": [80]},
            units={"gpu_memory_used": "GiB", "gpu_memory_total": "GB"},
        )


# --- steps, ranks, rows ------------------------------------------------------------------------------------------------


def test_several_ranks_without_a_column_of_ranks_are_asked_for() -> None:
    interleaved = [{"step": step, "loss": 1.0 + rank} for step in range(3) for rank in range(2)]

    with pytest.raises(LogFormatError, match=r"step 0 is there 2 times, with 'loss' of 1, 2: for a log of several ranks add"):
        read_metrics(interleaved)
    with pytest.raises(LogFormatError, match="several ranks"):
        read_metrics(interleaved[::2] + interleaved[1::2])


def test_rank_names_the_rank_of_a_log_or_chooses_it() -> None:
    ranked = {"rank": [0, 1], "step": [0, 0], "loss": [1.0, 2.0]}

    assert read_metrics({"step": [0], "loss": [1.0]}, rank=3).training["rank"].to_list() == [3]
    assert read_metrics(ranked, rank=1).training["loss"].to_list() == [2.0]
    assert read_metrics(ranked).world_size == 2
    with pytest.raises(LogFormatError, match="world_size 1, and the log has 2 ranks"):
        read_metrics(ranked, config={"world_size": 1})


def test_rows_of_one_step_that_complete_one_another_are_joined() -> None:
    rows = [{"step": 0, "loss": 1.0}, {"step": 0, "val_loss": 2.0}, {"step": 1, "loss": 0.5}]

    run = read_metrics(rows)

    assert run.training[["loss", "validation_loss"]].fillna(-1).to_numpy().tolist() == [[1.0, 2.0], [0.5, -1.0]]


def test_a_resumed_training_keeps_its_later_rows_and_lists_the_overlap() -> None:
    steps = [0, 1, 2, 3, 4, 2, 3, 4, 5]

    run = read_metrics({"step": steps, "loss": [float(number) for number in range(9)]})

    assert run.training["loss"].to_list() == [0.0, 1.0, 5.0, 6.0, 7.0, 8.0]
    assert "went back to step 2: 3 rows up to step 4 from before are left out" in " ".join(run.notes)


def test_steps_that_start_anew_in_each_epoch_are_numbered_on() -> None:
    run = read_metrics({"epoch": [0, 0, 1, 1], "step": [0, 1, 0, 1], "loss": [4.0, 3.0, 2.0, 1.0]})

    assert run.training["step"].to_list() == [0, 1, 2, 3]
    assert run.training["loss"].to_list() == [4.0, 3.0, 2.0, 1.0]


def test_unsorted_rows_are_sorted_and_rows_without_steps_numbered() -> None:
    unsorted = read_metrics({"step": [2, 0, 1], "loss": [2.0, 0.0, 1.0]})
    numbered = read_metrics({"loss": [2.0, 0.0, 1.0]})

    assert unsorted.training["loss"].to_list() == [0.0, 1.0, 2.0]
    assert numbered.training["step"].to_list() == [0, 1, 2]
    assert any("numbered from 0" in note for note in numbered.notes)


def test_without_step_times_neighbouring_rows_tell_them_and_rows_further_apart_do_not() -> None:
    near = read_metrics({"step": [5, 6, 7], "timestamp": [START_S, START_S + 1, START_S + 3], "loss": [3.0, 2.0, 1.0]})
    far = read_metrics({"step": [0, 10, 20], "timestamp": [START_S, START_S + 1, START_S + 3], "loss": [3.0, 2.0, 1.0]})

    assert near.steps[["step", "duration_us", "steps_inferred"]].to_numpy().tolist() == [[6, 1e6, True], [7, 2e6, True]]
    assert far.steps.empty
    assert "further apart than one step" in far.missing["steps"]
    assert len(far.training) == 3


def test_a_missing_value_is_missing_and_a_nan_loss_is_not_finite(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("step,loss,step_time_ms\n0,1.5,10\n1,nan,10\n2,,\n3,inf,10\n", encoding="utf-8")

    run = read_metrics(file)

    assert run.training["step"].to_list() == [0, 1, 3]
    assert run.training["finite"].to_list() == [True, False, False]
    assert math.isnan(run.training["loss"].iloc[1])
    assert run.steps["step"].to_list() == [0, 1, 3]
    assert read_metrics([{"step": 0, "loss": float("nan")}]).training["finite"].to_list() == [False]


def test_text_among_numbers_is_missing_and_said_and_columns_of_text_are_listed() -> None:
    run = read_metrics({"step": [0, 1, 2], "loss": ["1.5", "oops", 0.5], "note": ["a", "b", "c"], "acc": [1, 2, 3]})

    assert run.training["loss"].to_list() == [1.5, 0.5]
    said = " ".join(run.notes)
    assert "1 value of 'loss' is no number ('oops')" in said
    assert "1 column without numbers left out: note" in said
    assert "1 column of no known meaning in metrics: acc" in said


@pytest.mark.parametrize("time", [[0.1, 0.3, 0.2], [0.5, 0.5, 0.5]])
def test_a_column_named_time_that_does_not_go_on_is_asked_for(time: list[float]) -> None:
    with pytest.raises(LogFormatError, match="no moment: rename it to step_time"):
        read_metrics({"step": [0, 1, 2], "time": time}, units={"time": "s"})


@pytest.mark.parametrize("moments", [["2026-01-01T00:00:00Z", "2026-01-01T00:00:02+00:00"], [1767225600000, 1767225602000]])
def test_moments_are_dates_or_numbers_since_1970_of_any_size(moments: list[Any]) -> None:
    run = read_metrics({"step": [0, 1], "timestamp": moments, "loss": [1.0, 2.0]})

    assert run.training["time_us"].to_list() == [0.0, 2e6]


# --- samples -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        {"gpu_0_utilization": 30, "gpu_1_utilization": 90},
        {"gpu_utilization_0": 30, "gpu_utilization_1": 90},
        {"gpu_utilization": [30, 90]},
        {"gpu_utilization": {"gpu_0": 30, "gpu_1": 90}},
        {"gpus": [{"utilization": 30}, {"utilization": 90}]},
        {"system.gpu.0.gpu": 30, "system.gpu.1.gpu": 90},
        {"system/gpu_0_utilization_percentage": 30, "system/gpu_1_utilization_percentage": 90},
    ],
)
def test_values_per_gpu_come_in_many_forms(columns: dict[str, Any]) -> None:
    run = read_metrics([{"step": 0, **columns}])

    assert run.gpu_samples[["gpu", "utilization_share"]].to_numpy().tolist() == [[0, 0.3], [1, 0.9]]


def test_rows_per_gpu_are_samples_of_that_gpu_and_one_step() -> None:
    rows = [{"step": step, "gpu_id": gpu, "gpu_utilization": 10 * gpu + 50, "loss": 1.0} for step in range(2) for gpu in range(2)]

    run = read_metrics(rows)

    assert sorted(run.gpu_samples["gpu"]) == [0, 0, 1, 1]
    assert len(run.training) == 2


@pytest.mark.parametrize(
    ("columns", "used"),
    [({"gpu_memory_percent": 50.0}, 40), ({"gpu_memory_free_gib": 20.0}, 60)],
)
def test_used_memory_is_worked_out_where_the_total_is_known(columns: dict[str, float], used: int) -> None:
    run = read_metrics([{"step": 0, "gpu_memory_total_gib": 80, **columns}])

    assert run.gpu_samples["memory_used_bytes"].to_list() == [used << 30]


def test_shares_of_memory_without_a_size_are_metrics() -> None:
    run = read_metrics([{"step": 0, "gpu_memory_percent": 95.0, "memory_percent": 91.0}])

    assert run.metrics.set_index("name")["value"].to_dict() == {"gpu_memory_used_share": 0.95, "host_memory_used_share": 0.91}


def test_the_memory_of_the_machine_is_told_by_the_totals() -> None:
    run = read_metrics([{"step": 0, "gpu_memory_total_gib": [80, 40]}])

    assert run.machine.device_memory_bytes == (80 << 30, 40 << 30)


def test_snapshots_with_moments_belong_to_the_step_that_ends_after_them() -> None:
    training = {"step": [0, 1], "timestamp": [START_S + 1, START_S + 2], "step_time_s": [1.0, 1.0]}
    memory = {
        "timestamp": [START_S + 0.5, START_S + 1.2, START_S + 1.8],
        "allocated_gib": [1, 2, 3],
        "max_allocated_gib": [4, 6, 5],
    }

    run = read_metrics(training, memory)

    assert run.allocator["step"].to_list() == [0, 1]
    assert run.allocator["allocated_bytes"].to_list() == [1 << 30, 3 << 30]
    assert run.allocator["peak_allocated_bytes"].to_list() == [4 << 30, 6 << 30]


def host(values: list[float], name: str = "disk_read_bytes", **more: Any) -> pd.Series:
    return read_metrics(
        {"step": [0], "loss": [1.0]}, None, {"timestamp": [START_S + 2 * n for n in range(len(values))], name: values}, **more
    ).host_samples["disk_read_bytes_per_s"]


def test_counters_amounts_and_rates_of_bytes_are_told_apart() -> None:
    assert host([100, 300, 300, 900]).dropna().to_list() == [100.0, 0.0, 300.0]
    assert host([100, 300, 200], units={"disk_read_bytes": "B"}).dropna().to_list() == [150.0, 100.0]
    assert host([100, 300, 200], "disk_read_bytes_per_s").to_list() == [100.0, 300.0, 200.0]
    assert host([1, 3, 2], units={"disk_read_bytes": "KB/s"}).to_list() == [1e3, 3e3, 2e3]


def test_bytes_that_may_be_rates_or_amounts_are_asked_for() -> None:
    with pytest.raises(LogFormatError, match=r'rises and falls, so it is no counter.*units={"disk_read_bytes": "B/s"}, or "B"'):
        host([100, 300, 200])


def test_a_counter_that_never_moves_is_a_rate_of_nothing() -> None:
    assert host([5, 5, 5]).dropna().to_list() == [0.0, 0.0]
    assert host([5, 5, 5], units={"disk_read_bytes": "B/s"}).to_list() == [5.0, 5.0, 5.0]


# --- hostile and damaged input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [[], {}, pd.DataFrame(), {"step": []}, [{}]])
def test_an_empty_log_is_refused(source: Any) -> None:
    with pytest.raises(LogFormatError, match=r"no rows|without rows|empty"):
        read_metrics(source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([1, 2], "entry 1 is a int"),
        ({"a": [1], "b": [1, 2]}, "different lengths"),
        ({"a": 1}, "'a' is a int"),
        (3, "is a int: pass a list of dicts"),
        ({"step": [0.5], "loss": [1.0]}, "holds 0.5, and a step is a whole number"),
        ({"step": [float("inf")], "loss": [1.0]}, "whole number"),
    ],
)
def test_what_is_no_log_is_refused_with_what_it_is(source: Any, said: str) -> None:
    with pytest.raises(LogFormatError, match=said):
        read_metrics(source)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"step": 0}\nnonsense\n{"step": 1}\n', "line 2 is no JSON object"),
        ("a.jsonl", b'{"step": 0}\n[1]\n', "entry 2 is a list"),
        ("a.json", b"[{]", "is no JSON"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"step,loss\n1,2,3\n4,5,6,7\n", "cannot be read as CSV"),
        ("a.csv", b"step\0\0\0,loss\n1,2\n", "no text"),
        ("a.parquet", b"PAR1" + b"x" * 20, "cannot be read as Parquet"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(LogFormatError, match=said):
        read_metrics(tmp_path / name)


@pytest.mark.parametrize(("name", "line"), [("a.jsonl", '{"step": %d, "loss": 1.0}'), ("a.csv", "%d,1.0,2")])
def test_a_last_line_that_is_cut_off_is_left_out_and_said(name: str, line: str, tmp_path: Path) -> None:
    head = "step,loss,acc\n" if name == "a.csv" else ""
    text = head + "".join(line % step + "\n" for step in range(3)) + (line % 3)[:4].rstrip(",")
    (tmp_path / name).write_text(text, encoding="utf-8")

    run = read_metrics(tmp_path / name)

    assert run.training["step"].to_list() == [0, 1, 2]
    assert any("its last line is cut off" in note for note in run.notes)


def test_names_are_data_whatever_they_say() -> None:
    evil = "__import__('os').system('x')\x1b[31m\n<script>"

    run = read_metrics({"step": [0], evil: [1.0], "{0.__class__}": [2.0], "x" * 5000: [3.0]})

    assert sorted(run.metrics["value"]) == [1.0, 2.0, 3.0]
    assert evil in run.metrics["name"].to_list()
    assert not any("\x1b" in note or "\n" in note for note in run.notes)


def test_values_written_as_names_are_refused() -> None:
    with pytest.raises(LogFormatError, match="values must not be part of names"):
        read_metrics([{f"loss_{number}": 1.0} for number in range(20_100)])


def test_numbers_of_other_libraries_are_numbers() -> None:
    run = read_metrics([{"step": np.int64(0), "loss": np.float32(0.5)}, {"step": np.int64(1), "loss": np.array(0.25)}])

    assert run.training["loss"].to_list() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("Train/Samples/lr", "learning_rate"),
        ("lr-AdamW/pg1", "learning_rate"),
        ("lm loss validation", "validation_loss"),
        ("DeviceStatsMonitor.on_train_batch_end/reserved_bytes.all.current", "gpu_memory_reserved"),
        ("memory/num_alloc_retries", "allocation_retries"),
        ("throughput(tps)", "tokens_per_s"),
        ("eval_samples_per_second", None),
        ("eval_runtime", None),
        ("train_runtime", None),
        ("train_loss_epoch", None),
        ("test_loss", None),
        ("val/time_metrics/end_to_end(s)", None),
    ],
)
def test_names_of_known_tools_mean_what_those_tools_mean(name: str, quantity: str | None) -> None:
    found = meaning(name)

    assert (found.quantity.name if found else None) == quantity


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    row = '{"step": %d, "step_time_ms": 90.0, "loss": 0.5, "lr": 0.001, "gpu_utilization": 50}\n'
    (tmp_path / "log.jsonl").write_text("".join(row % step for step in range(100_000)), encoding="utf-8")

    start = time.process_time()
    run = read_metrics(tmp_path / "log.jsonl")

    assert len(run.steps) == 100_000
    assert time.process_time() - start < 5  # 1 s on an idle core of 2026; the bound catches work per row
