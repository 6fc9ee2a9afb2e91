"""Real traces of many makers against exact numbers that other programs worked out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from perfnb.device_time import device_breakdown
from perfnb.ledger import step_ledger, used_steps
from perfnb.read.kineto import read_kineto
from perfnb.run import Run

pytestmark = pytest.mark.corpus
A_NANOSECOND = 0.001
WITHOUT_DEVICE = {"cpu_only"}


def answers(run: Run) -> Iterator[tuple[str, float]]:
    """Quantities of expected.csv that the tables of a run answer."""
    if not run.device_ops.empty:
        row = device_breakdown(run).iloc[0]
        yield "device_window_us", row["window_us"]
        yield "device_idle_us", row["idle_us"]
        yield "device_compute_us", row["compute_us"]
        yield "device_busy_us", row["busy_us"]
        yield "communication_us", row["communication_us"]
        yield "exposed_communication_us", row["exposed_communication_us"]
        yield "copy_or_memset_only_us", row["exposed_copy_us"]
    kinds = run.device_ops["kind"].value_counts()
    yield "kernels", kinds.get("compute", 0) + kinds.get("communication", 0)
    yield "communication_kernels", kinds.get("communication", 0)
    yield "copies", kinds.get("copy", 0)
    yield "memsets", kinds.get("memset", 0)
    yield "steps", len(run.steps)
    yield "data_loader_spans", run.host_ops["name"].astype(str).str.contains(r"enumerate\(DataLoader\).*__next__").sum()
    for number, wall in enumerate(run.steps["duration_us"]):
        yield f"step[{number}].wall_us", wall
    for number, data in enumerate(run.phases.loc[run.phases["phase"].eq("data"), "wall_us"]):
        yield f"step[{number}].data_loader_us", data
    yield "rank", run.ranks[0]
    if run.world_size is not None:
        yield "world_size", run.world_size


@pytest.mark.no_cover
def test_every_trace_gives_the_exact_numbers(corpus: Path) -> None:
    expected = pd.read_csv(corpus / "expected.csv").set_index(["file", "quantity"])["value"]
    files = [name for name in expected.index.unique("file") if name.startswith("traces/") and (corpus / name).is_file()]

    wrong, compared = [], 0
    for name in files:
        truth = expected[name]
        for quantity, value in answers(read_kineto(corpus / name)):
            if quantity in truth.index:
                compared += 1
                if abs(float(truth[quantity]) - float(value)) > A_NANOSECOND * 1.01:
                    wrong.append((name, quantity, truth[quantity], value))

    assert wrong == []
    assert compared >= 600


@pytest.mark.parametrize(
    "name",
    [
        "traces/kineto/resnet50_pair_A/before_num_workers_0/worker0.1623143089861.pt.trace.json.gz",
        "traces/tracelens/mi300x_resnet_act_checkpoint/resnet_act_checkpoint.json.gz",
        "traces/hta/trace_diff/test.json.gz",
    ],
)
def test_shares_of_the_device_window_are_exact_to_a_hundredth_of_a_point(corpus: Path, name: str) -> None:
    expected = (
        pd.read_csv(corpus / "expected.csv").query("file == @name").set_index("quantity")["value"].astype(float, errors="ignore")
    )

    row = device_breakdown(read_kineto(corpus / name)).iloc[0]

    window = float(expected["device_window_us"])
    for ours, theirs in (("compute_us", "device_compute_us"), ("exposed_communication_us",) * 2, ("idle_us", "device_idle_us")):
        assert row[ours] / row["window_us"] == pytest.approx(float(expected[theirs]) / window, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("resnet50_pair_A/before_num_workers_0", 0.325),
        ("resnet50_pair_A/after_num_workers_4", 0.004),
        ("resnet50_pair_C/before_num_workers_0", 0.227),
        ("resnet50_pair_C/after_num_workers_4", 0.0),
    ],
)
def test_idle_time_for_data_is_what_two_prototypes_measured(corpus: Path, name: str, share: float) -> None:
    run = read_kineto(corpus / "traces/kineto" / name)

    ledger = step_ledger(run).merge(used_steps(run)[["rank", "step"]], on=["rank", "step"])

    lost = ledger.loc[ledger["part"].eq("idle.data"), "time_us"].sum()
    assert lost / used_steps(run)["duration_us"].sum() == pytest.approx(share, abs=0.005)


@pytest.mark.no_cover
def test_the_ledger_of_every_trace_with_steps_sums_to_its_steps(corpus: Path) -> None:
    summed = 0
    for path in sorted(path for path in (corpus / "traces").rglob("*.json*") if path.is_file()):
        run = read_kineto(path)
        if len(run.steps) and (run.is_device_job or len(run.phases)):
            step_ledger(run)  # asserts the sums itself
            summed += 1

    assert summed >= 25


def test_device_steps_of_a_host_that_runs_ahead_tile_the_window(corpus: Path) -> None:
    run = read_kineto(corpus / "traces/tracelens/mi300x_resnet_act_checkpoint")

    steps = device_breakdown(run, by="step")

    assert steps["step"].tolist() == run.steps["step"].tolist()
    assert steps["window_us"].sum() <= device_breakdown(run)["window_us"].sum() + A_NANOSECOND


def test_ranks_of_one_job_share_one_clock(corpus: Path) -> None:
    run = read_kineto(corpus / "traces/param/dlrm_8rank")

    ends = run.collectives.assign(end_us=run.collectives["start_us"] + run.collectives["duration_us"])
    ends = ends.assign(call=ends.groupby("rank").cumcount())

    assert run.ranks == tuple(range(8))
    assert ends.groupby("call")["end_us"].agg(lambda end: end.max() - end.min()).max() <= 10.0
