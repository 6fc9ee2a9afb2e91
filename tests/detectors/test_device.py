"""Detectors of the device, where an example beside the detector cannot say it: hints, reasons, and one owner per kernel."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from perfnb.analyses.kernel_owners import OWNERS, kernel_owners
from perfnb.catalogue import detectors
from perfnb.detector import ConfigHint, Detector, Unmeasured
from perfnb.run import Machine, Run
from perfnb.tables import table_from_text

BY_NAME = {each.name: each for each in detectors()}


def without_rates(found: Detector) -> Run:
    return replace(found.examples[0].run, machine=Machine())


def test_float64_of_unknown_speed_is_a_hint_with_its_share_of_compute() -> None:
    found = BY_NAME["full_precision_math"]

    with pytest.raises(ConfigHint, match=r"products run in float64 in 28% of compute time: time the same shapes"):
        found.evidence(without_rates(found))


def test_a_config_that_says_float64_is_a_hint_on_a_cpu_job_that_was_not_traced() -> None:
    found = BY_NAME["full_precision_math"]
    steps = table_from_text("steps", "rank step start_us duration_us\n0 7 0 100")
    run = Run(steps=steps, config={"precision": "fp64"}, signals=frozenset({"steps"}))

    with pytest.raises(ConfigHint, match=r"fp64 in the training, as its config says"):
        found.evidence(run)
    assert found.evidence(replace(run, config={"precision": "fp32"})).empty
    with pytest.raises(Unmeasured, match=r"record\(trace=5\), or give the config"):
        found.evidence(replace(run, config={}))


@pytest.mark.parametrize("name", ["unfused_attention", "misaligned_shapes", "slow_kernels"])
def test_without_a_microbenchmark_efficiency_is_not_measured_and_what_to_measure_is_said(name: str) -> None:
    found = BY_NAME[name]

    with pytest.raises(Unmeasured, match=r"measure .*memory\.bytes_per_s"):
        found.evidence(without_rates(found))


def test_a_device_of_unknown_size_may_be_full() -> None:
    found = BY_NAME["underfilled_gpu"]

    with pytest.raises(Unmeasured, match="how many multiprocessors"):
        found.evidence(without_rates(found))


def test_a_device_that_was_always_throttled_has_no_usual_clock() -> None:
    found = BY_NAME["clock_throttling"]
    run = found.examples[0].run
    hot = run.gpu_samples.assign(throttle_reasons=pd.array([32] * len(run.gpu_samples), dtype="Int64"))

    with pytest.raises(Unmeasured, match="every busy sample was throttled"):
        found.evidence(replace(run, gpu_samples=hot))


def test_the_optimizer_of_a_device_job_counts_only_as_events_timed_it() -> None:
    found = BY_NAME["undersized_batch"]
    run = BY_NAME["launch_overhead"].examples[0].run
    phases = table_from_text("phases", "rank step phase wall_us\n0 7 optimizer 90\n0 8 optimizer 90")
    run = replace(run, phases=phases, signals=run.signals | {"phases"})

    with pytest.raises(Unmeasured, match="times it by events"):
        found.evidence(run)


def test_time_that_the_host_is_held_stands_beside_the_loss_of_a_sync() -> None:
    found = BY_NAME["host_sync"]

    evidence = found.evidence(found.examples[0].run)

    first = evidence[evidence["rank"].eq(0) & evidence["step"].eq(7)].iloc[0]
    assert (first["lost_us"], first["held_us"]) == (20.0, 55.0)


def test_late_slow_steps_count_within_the_warm_up_if_they_are_more_than_three() -> None:
    found = BY_NAME["recompilation"]
    lengths = [100, 100, 100, 100, 10, 10, 10, 10, 10, 10, 10]  # steps -5 to 5: four that take ten times the median
    starts = [sum(lengths[:place]) for place in range(len(lengths))]
    steps = table_from_text(
        "steps",
        "rank step start_us duration_us\n"
        + "\n".join(f"0 {place - 5} {start} {length}" for place, (start, length) in enumerate(zip(starts, lengths, strict=True))),
    )
    rows = "\n".join(f"0 1 1 compile dynamo {start + 10} 50" for start in (0, 100, 200, 300))
    host = table_from_text("host_ops", "rank process thread category name start_us duration_us\n" + rows)
    run = Run(steps=steps, host_ops=host, signals=frozenset({"steps", "host_ops", "compile"}))

    evidence = found.evidence(run)
    of_three = found.evidence(replace(run, host_ops=host.iloc[:3]))

    assert evidence["duration_us"].sum() == 200.0
    assert of_three.empty


def test_every_kernel_has_one_owner_the_first_whose_rule_holds() -> None:
    runs = [case.run for name in OWNERS for case in BY_NAME[name].examples]

    for run in runs:
        owners = kernel_owners(run.host_ops, run.device_ops, run.machine, run.config)["owner"]
        assert len(owners) == int(run.device_ops["kind"].eq("compute").sum())
        assert owners.isin(OWNERS).all()


@pytest.mark.parametrize(
    "training",
    [
        "rank step time_us batch_size\n0 7 0 8\n0 8 100 8",
        "rank step time_us batch_size\n0 7 0 8\n0 8 100 16",  # two steps: no line that its error could speak against
    ],
)
def test_one_batch_size_and_a_light_optimizer_do_not_tell_whether_the_batch_is_too_small(training: str) -> None:
    run = Run(
        steps=table_from_text("steps", "rank step start_us duration_us\n0 7 0 100\n0 8 100 100"),
        phases=table_from_text(
            "phases", "rank step phase wall_us\n0 7 optimizer 49\n0 7 forward 51\n0 8 optimizer 49\n0 8 forward 51"
        ),
        training=table_from_text("training", training),
        signals=frozenset({"steps", "phases", "training"}),
    )

    with pytest.raises(Unmeasured, match=r"take 49 %.*record steps of two batch sizes"):
        BY_NAME["undersized_batch"].evidence(run)
