"""The detection benchmark: scores of hand-made results, what a stored case gives back, and a tiny live case."""

import json
import lzma
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import perfnb
from benchmarks.detection import storage
from benchmarks.detection.case import ONCE, Case, Fault, Found, Measured, Row, Truth
from benchmarks.detection.run import cases as cases_of
from benchmarks.detection.score import Share, counts, judged, median_and_p90, score
from perfnb.record.run_folder import FolderSink
from perfnb.run import Run
from perfnb.schemas import SCHEMAS


def nothing(plan: Any, _: float) -> tuple[Any, Any]:
    return plan, plan


SLOW = Fault("slow_item", "data", ("slow_sample_read",), nothing, "", accepted=("data_stall",))
LOGGING = Fault("python_logging", "device idle", ("python_overhead",), nothing, "")
SMALL = Fault("small_ops", "device idle", ("launch_overhead",), nothing, "", doses=ONCE, seen_in_tables=False)
FAULTS = {fault.id: fault for fault in (SLOW, LOGGING, SMALL)}
ACCEPTED = {"beside_busy": ("cpu_contention",)}


def found(detector: str, severity: float, confidence: float = 0.5, *, width: float = 0.02) -> Found:
    return Found(detector, severity, severity - width, severity + width, 1000 * severity, confidence, 2)


def case(*faults: str, control: str = "", **more: Any) -> Case:
    return Case("single" if faults else "controls", "gru_language_model", "alone", "held_out", faults, control=control, **more)


def truth(fault: str, share: float) -> Truth:
    return Truth(fault, "own", share, 100.0, 100.0 * (1 - share))


def row(shares: dict[str, float], *findings: Found, unmeasured: tuple[str, ...] = (), **more: Any) -> Row:
    truths = tuple(truth(fault, share) for fault, share in shares.items())
    return Row(case(*shares), truths, findings, dict.fromkeys(unmeasured, "no table"), **more)


def control(name: str, *findings: Found, **more: Any) -> Row:
    return Row(case(control=name), (), findings, {}, certified={"is_certified": True}, **more)


def test_a_found_cause_is_a_hit_and_its_heading_is_accepted() -> None:
    said = judged(row({"slow_item": 0.40}, found("slow_sample_read", 0.38), found("data_stall", 0.06)), FAULTS, ACCEPTED)

    assert [(each.detector, each.outcome, each.is_first) for each in said] == [
        ("slow_sample_read", "hit", True),
        ("data_stall", "accepted", False),
    ]


def test_another_cause_is_a_miss_and_a_false_alarm() -> None:
    said = judged(row({"slow_item": 0.40}, found("python_overhead", 0.38)), FAULTS, ACCEPTED)

    assert [(each.detector, each.outcome) for each in said] == [
        ("slow_sample_read", "miss"),
        ("python_overhead", "false alarm"),
    ]


def test_a_cause_below_three_percent_must_not_be_found() -> None:
    said = judged(row({"slow_item": 0.02}, found("slow_sample_read", 0.06)), FAULTS, ACCEPTED)

    assert [(each.detector, each.outcome) for each in said] == [
        ("slow_sample_read", "quiet"),
        ("slow_sample_read", "false alarm"),
    ]


def test_a_cause_between_the_bounds_is_not_judged() -> None:
    said = judged(row({"slow_item": 0.05}, found("slow_sample_read", 0.06)), FAULTS, ACCEPTED)

    assert {each.outcome for each in said} == {"between"}


def test_what_cannot_be_looked_for_is_neither_hit_nor_miss() -> None:
    said = judged(row({"small_ops": 0.5}, unmeasured=("launch_overhead",)), FAULTS, ACCEPTED)

    whole = score(said, FAULTS)

    assert [each.outcome for each in said] == ["not measured"]
    assert (whole.recall.of, whole.unmeasured.of) == (0, 0)
    assert (whole.unseen.hits, whole.unseen.of) == (1, 1)


def test_not_measured_counts_against_a_detector_whose_tables_are_there() -> None:
    said = judged(row({"slow_item": 0.4}, unmeasured=("slow_sample_read",)), FAULTS, ACCEPTED)

    whole = score(said, FAULTS)

    assert (whole.unmeasured.hits, whole.unmeasured.of) == (1, 1)


def test_contention_is_true_of_a_machine_that_is_busy_by_itself() -> None:
    findings = found("cpu_contention", 0.5), found("slow_sample_read", 0.4)
    quiet = row({"slow_item": 0.4}, *findings, seen={"runqueue_share": 0.04})
    busy = row({"slow_item": 0.4}, *findings, seen={"runqueue_share": 0.06})

    said = [judged(each, FAULTS, ACCEPTED) for each in (quiet, busy)]

    assert [(hit.is_first, other.outcome) for hit, other in said] == [(False, "false alarm"), (True, "accepted")]


def test_waiting_is_true_of_a_training_that_waits_for_its_workers_without_a_fault() -> None:
    of = "gru_language_model", "alone"
    other = row({"python_logging": 0.4}, found("data_stall", 0.3), found("python_overhead", 0.4))
    own = row({"slow_item": 0.4}, found("data_stall", 0.3), found("slow_sample_read", 0.4))

    said = {bool(ambient): judged(other, FAULTS, ACCEPTED, ambient) for ambient in ({}, {of: ("data_stall",)})}
    slow = judged(own, FAULTS, ACCEPTED, {of: ("data_stall",)})

    assert [(each.detector, each.outcome, each.is_first) for each in said[False]] == [
        ("python_overhead", "hit", False),
        ("data_stall", "false alarm", True),
    ]
    assert [(each.outcome, each.is_first) for each in said[True]] == [("hit", True), ("accepted", True)]
    assert [(each.outcome, each.is_first) for each in slow] == [("hit", False), ("accepted", True)]


def test_workers_that_compute_may_take_the_core_and_nobody_else() -> None:
    heavy = replace(SLOW, id="heavy_transform", expects=("slow_transform",), accepted_with_workers=("cpu_contention",))
    alone = row({"heavy_transform": 0.4}, found("cpu_contention", 0.5), found("slow_transform", 0.4))
    workers = replace(alone, case=replace(alone.case, setting="workers"))

    said = [judged(each, {heavy.id: heavy}, ACCEPTED) for each in (alone, workers)]

    assert [(hit.is_first, other.outcome) for hit, other in said] == [(False, "false alarm"), (True, "accepted")]


def test_a_case_is_of_a_kind_of_job() -> None:
    single = case("slow_item")
    ranks = replace(single, kind="ranks", setting="small")
    healthy = case(control="idle_workers")

    jobs = [each.job for each in (single, replace(single, setting="workers"), healthy, ranks)]

    assert jobs == ["no loader workers", "two loader workers", "two loader workers", "two ranks"]


def test_a_fault_of_some_settings_has_cases_of_those_alone() -> None:
    pytest.importorskip("torch")
    cases = [each for each in cases_of("held_out") if each.faults == ("worker_handover",)]

    assert {each.setting for each in cases} == {"workers"}
    assert len({each.workload for each in cases}) == 3


def test_scores_of_hand_made_results() -> None:
    rows = [
        row({"slow_item": 0.40}, found("slow_sample_read", 0.44, 0.9, width=0.05)),  # error .10, the interval holds it
        row({"slow_item": 0.20}, found("slow_sample_read", 0.10, 0.9)),  # error .50, it does not
        row({"python_logging": 0.40}, found("slow_sample_read", 0.5, 0.1), found("python_overhead", 0.4, 0.9)),  # second, error 0
        row({"python_logging": 0.10}),
        row(
            {"slow_item": 0.30, "python_logging": 0.20}, found("python_overhead", 0.20, 0.9), found("slow_sample_read", 0.3, 0.9)
        ),
        control("quiet"),
        control("beside_busy", found("cpu_contention", 0.5)),
        control("evaluation", found("python_overhead", 0.12, 0.1)),
    ]

    whole = score([said for each in rows for said in judged(each, FAULTS, ACCEPTED)], FAULTS, [r.case for r in rows[5:]])

    assert (whole.precision.hits, whole.precision.of) == (5, 7)
    assert (whole.recall.hits, whole.recall.of) == (5, 6)
    assert (whole.first.hits, whole.first.of) == (2, 4)  # of runs with one fault
    assert sorted(round(error, 9) for error in whole.size_errors) == [0.0, 0.0, 0.0, 0.1, 0.5]
    assert median_and_p90(whole.size_errors) == (0.0, pytest.approx(0.5))
    # A truth of 40 of 100 us and a finding of 440: lost_us is 1000 x severity in these rows.
    assert max(whole.time_errors) == pytest.approx(440 / 40 - 1)
    assert (whole.coverage.hits, whole.coverage.of) == (4, 5)
    assert (whole.alarms.hits, whole.alarms.of) == (1, 3)
    # Five at .9, all right; two at .1, both wrong: (5 x .1 + 2 x .1) / 7.
    assert whole.reliability == (pytest.approx(0.1), 7)


def test_counts_of_the_track_record() -> None:
    rows = [
        row({"slow_item": 0.40}, found("slow_sample_read", 0.4)),
        row({"python_logging": 0.40}, found("slow_sample_read", 0.4), found("python_overhead", 0.4)),
    ]

    told = counts([said for each in rows for said in judged(each, FAULTS, ACCEPTED)])

    assert told == {"python_overhead": {"2": [1, 0]}, "slow_sample_read": {"2": [1, 1]}}


def test_the_wilson_interval_of_none_in_forty() -> None:
    share = Share(0, 40)

    assert share.low == pytest.approx(0.0)
    assert share.high == pytest.approx(3.8414588 / 43.8414588)  # z^2 / (n + z^2)
    assert math.isnan(Share(0, 0).value)


def test_a_case_tells_itself_in_json() -> None:
    one = case("slow_item", "python_logging", dose=0.4, seed=3)

    assert Case.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert one.id == "gru_language_model-alone-slow_item+python_logging-40-quiet-3"


def recording(folder: Path, rank: int = 0) -> None:
    header = {"rank": rank, "world_size": 2, "monotonic_ns": 1_000, "wall_ns": 9_000, "host": "node7", "boot": "b", "process": 7}
    sink = FolderSink(folder, {"schema_version": 1, **header, "config": {"batch_size": 8}, "machine": {"cpu_capacity": 2.0}})
    edges = [1_000_003 * step + rank for step in range(40)]
    sink.append("steps", [(step, edges[step], edges[step + 1], False, 0, 1) for step in range(39)])
    sink.append(
        "phases",
        [
            (step, phase, 1_000_003 - 400_000 if phase == "forward" else 400_000, 300_000 + step, 7 if step else None, None)
            for step in range(39)
            for phase in ("data", "forward")
        ],
    )
    sink.append("values", [(step, edges[step], "loss", 1.0 / (step + 3)) for step in range(39)])
    sink.close("finished", "")


def frames(run: Run) -> dict[str, pd.DataFrame]:
    """Tables without what names the machine."""
    return {name: getattr(run, name).drop(columns=["host", "process"], errors="ignore") for name in SCHEMAS}


def test_a_stored_run_is_the_run_that_was_recorded(tmp_path: Path) -> None:
    for rank in (0, 1):
        recording(tmp_path / "run", rank)
    recording(tmp_path / "earlier" / "0")
    fresh = perfnb.read_run(tmp_path / "run")
    path = tmp_path / "case.json.xz"

    storage.write(path, case("slow_item"), Measured((truth("slow_item", 0.4),)), tmp_path, {"seconds": 1.0})
    stored = storage.read(path)

    for name, frame in frames(fresh).items():
        pd.testing.assert_frame_equal(frame, frames(stored.run)[name])
    assert (stored.run.config, stored.run.signals, stored.run.missing) == (fresh.config, fresh.signals, fresh.missing)
    assert stored.case == case("slow_item")
    assert stored.measured.truths == (truth("slow_item", 0.4),)
    assert len(stored.run.earlier) == 1
    ours, theirs = perfnb.diagnose(replace(stored.run, earlier=())), perfnb.diagnose(fresh)
    pd.testing.assert_frame_equal(ours.findings, theirs.findings)
    pd.testing.assert_frame_equal(ours.not_limiting, theirs.not_limiting)
    pd.testing.assert_frame_equal(ours.not_measured, theirs.not_measured)


def test_a_stored_case_does_not_name_the_machine(tmp_path: Path) -> None:
    recording(tmp_path / "run")

    storage.write(tmp_path / "case.json.xz", case("slow_item"), Measured(()), tmp_path, {})

    assert b"node7" not in lzma.decompress((tmp_path / "case.json.xz").read_bytes())


@pytest.mark.torch
@pytest.mark.slow
def test_a_tiny_live_case_measures_its_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from benchmarks.detection import run, single  # noqa: PLC0415 - imports torch
    from benchmarks.detection.report import scored  # noqa: PLC0415 - as above

    monkeypatch.setattr(single, "STEPS", 12)
    monkeypatch.setattr(single, "RUN_STEPS", 30)
    monkeypatch.setattr(single, "ROUNDS", 2)
    monkeypatch.chdir(tmp_path)
    one = Case("single", "mlp", "alone", "development", ("slow_item",), 0.8)

    measured = single.measure(one, tmp_path)
    storage.write(tmp_path / "out" / f"{one.id}{storage.SUFFIX}", one, measured, tmp_path, run.provenance(1.0))
    whole = scored(tmp_path / "out")

    assert 0.6 < measured.truths[0].share < 0.95
    assert [(said.fault, said.outcome) for said in whole.said][:1] in ([("slow_item", "hit")], [("slow_item", "miss")])
    assert whole.rows[0].case == one
    assert str(tmp_path) not in lzma.decompress((tmp_path / "out" / f"{one.id}{storage.SUFFIX}").read_bytes()).decode()
