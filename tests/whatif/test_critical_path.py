"""The critical path: its pieces cover a step exactly once, and shorter work never makes it longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfnb import read_trace
from perfnb.errors import PerfnbError
from perfnb.run import Run
from perfnb.tables import table_from_text
from perfnb.whatif.critical_path import critical_path, critical_path_summary
from perfnb.whatif.scaled_path import critical_path_bounds, least_step_us

TRACES = (
    "hta/trace_diff/test.json.gz",  # ops without a recorded launch, graph replays
    "hta/sampled_2_of_128/sampled_rank-0.json.gz",
    "kineto/resnet50_pair_A/before_num_workers_0/worker0.1623143089861.pt.trace.json.gz",
    "param/dlrm_8rank/worker0_step_12.1694128201545.pt.trace.json",
    "tracelens/mi210_gpu_only/gpu_only_trace.json.gz",  # no host rows
    "tracelens/b200_eager/eager_trace.json.gz",  # no steps
)


def two_streams() -> Run:
    """Host launches A (stream 1) and B (stream 2), then waits for the device: A 5..25, B 8..50, sync until 52."""
    host = table_from_text(
        "host_ops",
        """rank process thread category   name                  start_us duration_us correlation
           0    1       1      annotation ProfilerStep#1        0        60          -
           0    1       1      runtime    cudaLaunchKernel      2        1           1
           0    1       1      runtime    cudaLaunchKernel      4        1           2
           0    1       1      runtime    cudaDeviceSynchronize 10       42          3""",
    )
    device = table_from_text(
        "device_ops",
        """rank device stream kind    name start_us duration_us correlation
           0    0      1      compute A    5        20          1
           0    0      2      compute B    8        42          2""",
    )
    steps = table_from_text("steps", "rank step start_us duration_us\n0 1 0 60")
    return Run(steps=steps, host_ops=host, device_ops=device, signals=frozenset({"steps", "host_ops", "device_ops"}))


def test_the_path_of_two_streams_goes_through_the_longer_one() -> None:
    path = critical_path(two_streams())

    assert path["duration_us"].sum() == pytest.approx(60.0)
    assert path["start_us"].is_monotonic_increasing
    named = dict(zip(path["name"], path["duration_us"], strict=True))
    assert named["B"] == pytest.approx(42.0)
    assert "A" not in named
    launch = path[path["kind"].eq("launch")].iloc[0]
    assert (launch["start_us"], launch["duration_us"]) == (4.0, 4.0)


def test_the_summary_adds_up_to_the_step() -> None:
    summary = critical_path_summary(critical_path(two_streams()))

    assert summary["share"].sum() == pytest.approx(1.0)
    assert summary.iloc[0]["kind"] == "kernel"


def test_shortening_what_is_not_critical_changes_nothing() -> None:
    assert least_step_us(two_streams(), name="^A$", scale=0.0) == pytest.approx(60.0)


def test_shortening_the_longer_stream_gives_a_lower_bound() -> None:
    least = least_step_us(two_streams(), name="^B$", kind="kernel", scale=0.0)

    # A wait is known to be for the op that ended last, B. Without it the host goes on at 10 and does its 8; that it would have
    # waited for A until 25 the graph does not say, so the bound is lower than the 35 that would come of it.
    assert least == pytest.approx(18.0)


@pytest.mark.parametrize("scale", [-0.1, 1.5])
def test_a_scale_outside_0_to_1_is_refused(scale: float) -> None:
    with pytest.raises(PerfnbError, match="outside 0 to 1"):
        least_step_us(two_streams(), kind="kernel", scale=scale)


def test_a_question_about_nothing_is_refused() -> None:
    with pytest.raises(PerfnbError, match="chooses nothing"):
        least_step_us(two_streams())


@pytest.mark.corpus
@pytest.mark.parametrize("name", TRACES)
def test_pieces_cover_recorded_steps_exactly_once(corpus: Path, name: str) -> None:
    run = read_trace(corpus / "traces" / name)

    path = critical_path(run)

    begin = path["start_us"].to_numpy()
    end = begin + path["duration_us"].to_numpy()
    assert abs(begin[1:] - end[:-1]).max(initial=0.0) < 0.001
    assert path["duration_us"].sum() == pytest.approx(path.attrs["duration_us"], abs=0.01)


@pytest.mark.corpus
@pytest.mark.parametrize("name", TRACES)
def test_scale_one_gives_the_recorded_length_and_less_work_is_never_longer(corpus: Path, name: str) -> None:
    run = read_trace(corpus / "traces" / name)
    recorded = critical_path(run).attrs["duration_us"]

    lengths = [least_step_us(run, kind="kernel", scale=scale) for scale in (1.0, 0.5, 0.0)]

    assert lengths[0] == pytest.approx(recorded, rel=1e-9, abs=0.01)
    assert lengths[1] <= lengths[0] + 0.01
    assert lengths[2] <= lengths[1] + 0.01


@pytest.mark.corpus
def test_bounds_stand_for_what_is_on_the_path(corpus: Path) -> None:
    run = read_trace(corpus / "traces" / TRACES[2])

    bounds = critical_path_bounds(run)

    assert {"operator", "data loading"} <= set(bounds["kind"].astype(str))
    assert (bounds["most_gain_us"] >= -0.01).all()
    assert (bounds["least_us"] <= critical_path(run).attrs["duration_us"] + 0.01).all()
