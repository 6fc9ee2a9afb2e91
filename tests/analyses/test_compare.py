"""Two runs side by side, per step and with spread."""

from __future__ import annotations

from pathlib import Path

import pytest

import perfnb
from perfnb.analyses.compare import compare_kernels, compare_operators, compare_steps, largest_changes
from perfnb.errors import PerfnbError
from perfnb.run import Run
from perfnb.tables import table_from_text


def stepped(times: list[list[float]], name: str = "aten::mm") -> Run:
    """One rank with one step of 1,000 us per list; each entry an operator with one kernel, both of that duration."""
    steps, host, device, correlation = ["rank step start_us duration_us"], [], [], 0
    for number, durations in enumerate(times):
        steps.append(f"0 {number} {1000 * number} 1000")
        moment = 1000.0 * number + 1
        for duration in durations:
            correlation += 1
            host.append(f"0 p t operator {name} {moment} {duration} -")
            host.append(f"0 p t runtime cudaLaunchKernel {moment} 1 {correlation}")
            device.append(f"0 0 7 compute gemm {moment + 0.5} {duration} {correlation}")
            moment += duration + 1
    header = "rank process thread category name start_us duration_us correlation\n"
    return Run(
        steps=table_from_text("steps", "\n".join(steps)),
        host_ops=table_from_text("host_ops", header + "\n".join(host)),
        device_ops=table_from_text(
            "device_ops", "rank device stream kind name start_us duration_us correlation\n" + "\n".join(device)
        ),
    )


def test_unequal_numbers_of_steps_compare_per_step() -> None:
    before, after = stepped([[20.0, 20.0]] * 3), stepped([[20.0]] * 7)

    found = compare_kernels(before, after).iloc[0]

    assert found[["calls_before", "calls_after"]].tolist() == [2.0, 1.0]
    assert found[["time_before_us", "time_after_us", "difference_us"]].tolist() == [40.0, 20.0, -20.0]
    assert found[["steps_before", "steps_after", "change"]].tolist() == [3, 7, "faster"]


def test_a_difference_within_the_spread_of_the_steps_is_unchanged() -> None:
    before, after = stepped([[10.0], [50.0], [30.0], [20.0]]), stepped([[50.0], [12.0], [31.0], [21.0]])

    found = compare_operators(before, after, categories=["operator"]).iloc[0]

    assert found["change"] == "unchanged"
    assert found["low_us"] < 0 < found["high_us"]
    assert found["difference_us"] == pytest.approx(1.0)


def test_one_step_shows_no_spread_so_a_change_is_unclear() -> None:
    found = compare_kernels(stepped([[20.0]]), stepped([[30.0]])).iloc[0]

    assert found["change"] == "unclear"
    assert found[["low_us", "high_us"]].isna().all()


def test_what_only_one_run_has_is_added_or_removed() -> None:
    found = compare_operators(stepped([[20.0]] * 3), stepped([[30.0]] * 3, "aten::bmm"), categories=["operator"])

    assert found[["name", "change", "difference_us"]].to_numpy().tolist() == [
        ["aten::bmm", "added", 30.0],
        ["aten::mm", "removed", -20.0],
    ]


def test_own_time_leaves_out_what_runs_inside() -> None:
    found = compare_operators(stepped([[20.0]] * 3), stepped([[30.0]] * 3)).set_index("name")

    assert found.loc["aten::mm", ["time_before_us", "self_before_us", "self_after_us"]].tolist() == [20.0, 19.0, 29.0]


def test_steps_of_different_numbers_are_one_annotation() -> None:
    header = "rank process thread category name start_us duration_us\n"
    one = Run(host_ops=table_from_text("host_ops", header + "0 p t annotation ProfilerStep#3 0 10"))
    two = Run(host_ops=table_from_text("host_ops", header + "0 p t annotation ProfilerStep#9 0 14"))

    found = compare_operators(one, two)

    assert found[["name", "difference_us"]].to_numpy().tolist() == [["ProfilerStep", 4.0]]


def test_ranks_can_be_chosen_and_are_averaged_otherwise() -> None:
    header = "rank process thread category name start_us duration_us\n"
    run = Run(host_ops=table_from_text("host_ops", header + "0 p t operator mm 0 10\n1 p t operator mm 0 30"))
    nothing = Run(host_ops=table_from_text("host_ops", header + "0 p t operator bmm 0 1"))

    every, chosen = (compare_operators(nothing, run, ranks=ranks).set_index("name") for ranks in (None, [1]))

    assert every.loc["mm", "time_after_us"] == 20.0
    assert chosen.loc["mm", "time_after_us"] == 30.0


def test_steps_compare_with_a_speedup_and_its_interval() -> None:
    before, after = stepped([[400.0], [420.0], [410.0]]), stepped([[200.0], [210.0], [205.0]])

    found = compare_steps(before, after).set_index("quantity")

    assert found.loc["compute_us", "speedup"] == pytest.approx(2.0)
    assert found.loc["compute_us", "speedup_low"] <= 2.0 <= found.loc["compute_us", "speedup_high"]
    assert found.loc["step_us", "speedup"] == 1.0


def test_runs_with_nothing_in_common_give_empty_tables() -> None:
    assert compare_steps(Run(), Run()).empty
    assert compare_kernels(Run(), Run()).empty
    assert largest_changes(compare_operators(Run(), Run())).empty


@pytest.mark.corpus
@pytest.mark.parametrize(("pair", "speedup"), [("A", 1.31), ("C", 1.29)])
def test_recorded_pairs_have_the_speedup_that_is_known(corpus: Path, pair: str, speedup: float) -> None:
    folder = corpus / "traces" / "kineto" / f"resnet50_pair_{pair}"
    before, after = (perfnb.read_trace(folder / name) for name in ("before_num_workers_0", "after_num_workers_4"))

    steps = compare_steps(before, after).set_index("quantity")
    operators = compare_operators(before, after)

    assert steps.loc["step_us", "speedup"] == pytest.approx(speedup, abs=0.005)
    assert steps.loc["step_us", "speedup_low"] < speedup < steps.loc["step_us", "speedup_high"]
    assert "SingleProcessDataLoaderIter" in operators.loc[0, "name"]
    assert operators.loc[0, "change"] == "removed"


@pytest.mark.corpus
def test_a_recorded_change_that_made_it_slower_is_shown_as_slower(corpus: Path) -> None:
    folder = corpus / "traces" / "tracelens" / "mi300x_flux_pair"
    before, after = (perfnb.read_trace(folder / name) for name in ("before_aiter", "after_aiter_sage"))

    steps = compare_steps(before, after).set_index("quantity")
    kernels = compare_kernels(before, after)

    assert steps.loc["window_us", ["before_us", "after_us"]].tolist() == pytest.approx([710_600, 746_900], abs=50)
    compute = kernels[kernels["category"].eq("compute")]
    assert compute[["calls_before", "calls_after"]].sum().tolist() == [5549, 8589]
    assert kernels["name"].iloc[0].startswith("sage_fwd")
    assert kernels["change"].iloc[0] == "added"


@pytest.mark.corpus
def test_a_fused_operator_replaces_its_parts(corpus: Path) -> None:
    folder = corpus / "traces" / "tracelens" / "units" / "comparative" / "test01_moe_fused_vs_unfused"
    before, after = (perfnb.read_trace(folder / name) for name in ("trace1.json", "trace2.json"))

    found = compare_kernels(before, after)

    assert found["change"].value_counts().to_dict() == {"removed": 4, "added": 1}
    assert found["difference_us"].sum() == pytest.approx(-360.0)


def test_what_was_not_recorded_is_refused_and_no_work_that_went_away() -> None:
    ops = table_from_text("device_ops", "rank device kind name start_us duration_us\n0 0 compute gemm 0 4")
    recorded = Run(device_ops=ops)
    without = Run(missing={"device_ops": "CUDA activities were not recorded"})

    with pytest.raises(PerfnbError, match="the run after has no device_ops to compare: CUDA activities were not recorded"):
        compare_kernels(recorded, without)
